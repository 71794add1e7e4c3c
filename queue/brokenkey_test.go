package queue

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// A job whose key is something else by now takes none along that is fetched with it.
func TestFetchPassesAKeyThatIsNoJob(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("no-job")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 5)
		rdb.Set(t.Context(), taskPrefix(q)+pendingIDs(t, rdb, q)[2], "x", 0)
		f := newFetcher(j, j.queues[0], 0, newSlots(5, j.queues), 5, time.Millisecond, nil)
		keys, args := fetching(q)
		f.refill(t.Context(), keys, args)
		f.unready()
		w := newWorker(t, j, nil)
		var done ledger
		Handle(w, func(_ context.Context, job note) error { done.add(job.N); return nil })
		start(t, w)
		eventually(t, 10*time.Second, "the others ran", func() bool { return done.n.Load() == 4 })
		if done.runs[2] != 0 || len(done.runs) != 4 {
			t.Errorf("ran: %v", done.runs)
		}
	})
}

// limited is a client that may use no key of the queue's jobs but those whose IDs begin with "ok".
func limited(t *testing.T, addr string) redis.UniversalClient {
	t.Helper()
	all := client(t, []string{addr})
	if err := all.Do(t.Context(), "ACL", "SETUSER", "limited", "on", ">secret", "+@all", "~asynq:queues", "~asynq:{*}:[^t]*", "~asynq:{*}:t:ok*", "~scaleaware:*").Err(); err != nil {
		t.Fatal(err)
	}
	o := redisclient.Options(addr)
	o.Username, o.Password = "limited", "secret"
	rdb := redisclient.New(o)
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// A job that Redis does not let the script have, as one that was moved to another node, stays at its place in the queue, and so do
// those behind it. When it is at the head the worker hears why.
func TestFetchStopsAtAKeyItMayNotHave(t *testing.T) {
	t.Parallel()
	server := alone(t)
	rdb, q := limited(t, server.Addrs()[0]), fresh("refused")
	all := newJobs(t, client(t, server.Addrs()), nil, Queue{Name: q})
	for _, id := range []string{"ok0", "ok1", "no2", "ok3"} {
		enqueue(t, all, q, 1, ID(id))
	}
	keys, args := fetching(q)
	pop := func(rdb redis.UniversalClient) (string, error) {
		j := newJobs(t, rdb, nil, Queue{Name: q})
		f := newFetcher(j, j.queues[0], 0, newSlots(5, j.queues), 5, time.Millisecond, nil)
		f.pops = 1
		reply, err := f.pop(t.Context(), keys, args, 5)
		var ids []string
		for _, job := range reply.jobs {
			ids = append(ids, job.id)
		}
		return strings.Join(ids, " "), err
	}
	for _, want := range []string{"ok0 ok1", ""} {
		got, err := pop(rdb)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("a pop got %q, %v, want %q", got, err, want)
		}
		if left := strings.Join(pendingIDs(t, rdb, q), " "); left != "ok3 no2" {
			t.Errorf("%q wait", left)
		}
	}
	if got, err := pop(all.rdb); got != "no2 ok3" || err != nil {
		t.Errorf("a pop that may got %q, %v", got, err)
	}
}

// A pop that dies halfway, as the running jobs or their leases are something else, leaves all where they were, or to the next one.
func TestDyingPopLosesNothing(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	for _, name := range []string{"active", "lease"} {
		q := fresh("dying")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 5)
		before := pendingIDs(t, rdb, q)
		f := newFetcher(j, j.queues[0], 0, newSlots(5, j.queues), 3, time.Millisecond, nil)
		keys, args := fetching(q)
		rdb.Set(t.Context(), asynqKey(q, name), "x", 0)
		for range 2 {
			if f.refill(t.Context(), keys, args); len(f.ready) != 0 || f.away == 0 {
				t.Fatalf("%s: %d jobs came", name, len(f.ready))
			}
		}
		rdb.Del(t.Context(), asynqKey(q, name))
		if f.refill(t.Context(), keys, args); len(f.ready) != 3 || f.ready[0].id != before[4] {
			t.Errorf("%s: then %v came of %v", name, f.ready, before)
		}
		if s := status(t, j, q); s.Active != 3 || s.Waiting != 2 {
			t.Errorf("%s: %d run and %d wait", name, s.Active, s.Waiting)
		}
	}
}
