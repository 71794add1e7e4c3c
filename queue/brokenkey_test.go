package queue

import (
	"context"
	"errors"
	"slices"
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
		for _, slots := range []int{1, 5} {
			q := fresh("no-job")
			j := newJobs(t, rdb, nil, Queue{Name: q})
			enqueue(t, j, q, 5)
			rdb.Set(t.Context(), taskPrefix(q)+pendingIDs(t, rdb, q)[2], "x", 0)
			f := newFetcher(j, j.queues[0], 0, newSlots(slots, j.queues), slots, time.Millisecond, nil)
			keys, args := fetching(q)
			f.refill(t.Context(), keys, args)
			f.unready()
			w := newWorker(t, j, &WorkerOptions{Concurrency: slots, MaxConcurrency: slots})
			var done ledger
			Handle(w, func(_ context.Context, job note) error { done.add(job.N); return nil })
			start(t, w)
			eventually(t, 10*time.Second, "the others ran", func() bool { return done.n.Load() == 4 })
			if done.runs[2] != 0 || len(done.runs) != 4 {
				t.Errorf("ran: %v", done.runs)
			}
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
	pop := func(rdb redis.UniversalClient, n int) (string, error) {
		j := newJobs(t, rdb, nil, Queue{Name: q})
		f := newFetcher(j, j.queues[0], 0, newSlots(5, j.queues), 5, time.Millisecond, nil)
		f.pops = 1
		if err := j.seed(t.Context(), f.queue); err != nil {
			t.Fatal(err)
		}
		reply, err := f.pop(t.Context(), keys, args, n)
		var ids []string
		for _, job := range reply.jobs {
			ids = append(ids, job.id)
		}
		return strings.Join(ids, " "), err
	}
	for _, c := range []struct {
		most int
		want string
	}{{5, "ok0 ok1"}, {5, ""}, {1, ""}} {
		got, err := pop(rdb, c.most)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("a pop of %d got %q, %v, want %q", c.most, got, err, c.want)
		}
		if left := strings.Join(pendingIDs(t, rdb, q), " "); left != "ok3 no2" {
			t.Errorf("%q wait", left)
		}
	}
	if got, err := pop(all.rdb, 5); got != "no2 ok3" || err != nil {
		t.Errorf("a pop that may got %q, %v", got, err)
	}
}

// A pop that dies halfway, as the running jobs or their leases are something else, leaves all where they were, or to the next one.
func TestDyingPopLosesNothing(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	for _, name := range []string{"active", "lease"} {
		for _, n := range []int{1, 3} {
			q := fresh("dying")
			j := newJobs(t, rdb, nil, Queue{Name: q})
			enqueue(t, j, q, 5)
			before := pendingIDs(t, rdb, q)
			f := newFetcher(j, j.queues[0], 0, newSlots(5, j.queues), n, time.Millisecond, nil)
			if err := j.seed(t.Context(), f.queue); err != nil {
				t.Fatal(err)
			}
			keys, args := fetching(q)
			rdb.Set(t.Context(), asynqKey(q, name), "x", 0)
			for range 2 {
				if f.refill(t.Context(), keys, args); len(f.ready) != 0 || f.away == 0 {
					t.Fatalf("%s: %d jobs came", name, len(f.ready))
				}
			}
			rdb.Del(t.Context(), asynqKey(q, name))
			if f.refill(t.Context(), keys, args); len(f.ready) != n || f.ready[0].id != before[4] {
				t.Errorf("%s: then %v came of %v", name, f.ready, before)
			}
			if s := status(t, j, q); s.Active != n || s.Waiting != 5-n {
				t.Errorf("%s: %d run and %d wait", name, s.Active, s.Waiting)
			}
		}
	}
}

// twoRunning is a queue with two running jobs, and what ends the first of them, each with its verb.
func twoRunning(t *testing.T, rdb redis.UniversalClient, q string) (f *fetcher, end func(verbs ...string) []endReply) {
	t.Helper()
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 2, Unique(time.Hour))
	f = newFetcher(j, j.queues[0], 0, newSlots(2, j.queues), 2, time.Millisecond, nil)
	keys, args := fetching(q)
	if f.refill(t.Context(), keys, args); len(f.ready) != 2 {
		t.Fatalf("%d jobs came", len(f.ready))
	}
	return f, func(verbs ...string) []endReply {
		batch := make([]ending, len(verbs))
		for i, verb := range verbs {
			id := f.ready[i].id
			lock := rdb.HGet(t.Context(), taskPrefix(q)+id, "unique_key").Val()
			batch[i] = ending{verb: verb, id: id, owner: f.nonce(), msg: f.ready[i].msg, unique: lock}
			if verb != "done" {
				batch[i].score = "5"
			}
		}
		return f.ender.call(t.Context(), batch)
	}
}

// whole says whether a job is running, with its data and its lease, or is gone with all of it.
func whole(t *testing.T, rdb redis.UniversalClient, q, id string) (state string) {
	t.Helper()
	data := rdb.Exists(t.Context(), taskPrefix(q)+id).Val() == 1
	listed := rdb.LPos(t.Context(), asynqKey(q, "active"), id, redis.LPosArgs{}).Err() == nil
	leased := rdb.ZScore(t.Context(), asynqKey(q, "lease"), id).Err() == nil
	switch {
	case data && listed && leased:
		return "running"
	case !data && !listed && !leased:
		return "gone"
	default:
		t.Errorf("job %s is half there: data %v, listed %v, leased %v", id, data, listed, leased)
		return "half"
	}
}

// Of jobs that end together one that cannot stays as it is, and takes none of the others along.
func TestEndsThatFailStandAlone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, c := range map[string]struct {
			breaks func(q, id string) string // the second one's end
			verb   string
			ends   bool
		}{
			"its key":    {func(q, id string) string { return taskPrefix(q) + id }, "done", false},
			"failed":     {func(q, _ string) string { return asynqKey(q, "archived") }, "archive", false},
			"retrying":   {func(q, _ string) string { return asynqKey(q, "retry") }, "retry", false},
			"completed":  {func(q, _ string) string { return asynqKey(q, "completed") }, "complete", false},
			"put off":    {func(q, _ string) string { return asynqKey(q, "retry") }, "back", false},
			"its lock":   {func(q, id string) string { return rdb.HGet(t.Context(), taskPrefix(q)+id, "unique_key").Val() }, "done", true},
			"the counts": {func(q, _ string) string { return asynqKey(q, "processed:"+time.Now().UTC().Format(time.DateOnly)) }, "done", true},
		} {
			q := fresh("alone")
			f, end := twoRunning(t, rdb, q)
			a, b := f.ready[0].id, f.ready[1].id
			key := c.breaks(q, b)
			if err := rdb.Del(t.Context(), key).Err(); err != nil {
				t.Fatal(err)
			}
			rdb.RPush(t.Context(), key, "x")
			replies := end("done", c.verb)
			if replies[0].text != "OK" || replies[0].err != nil || whole(t, rdb, q, a) != "gone" {
				t.Errorf("%s: the first: %v", name, replies[0])
			}
			want := "running"
			if c.ends {
				want = "gone"
			}
			if (replies[1].err == nil) != c.ends || whole(t, rdb, q, b) != want {
				t.Errorf("%s: the second: %v", name, replies[1])
			}
			if n := rdb.Get(t.Context(), asynqKey(q, "processed")).Val(); !c.ends && n != "1" || c.ends && n != "2" {
				t.Errorf("%s: %s are processed", name, n)
			}
		}
	})
}

// So it is with one that ends by itself, and one that is another worker's by now is told so.
func TestLoneEndThatFails(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		rpush := func(key string) {
			rdb.Del(t.Context(), key)
			rdb.RPush(t.Context(), key, "x")
		}
		for name, c := range map[string]struct {
			breaks func(q, id string)
			want   string // what becomes of it
		}{
			"nothing":   {func(string, string) {}, "OK, gone"},
			"its key":   {func(q, id string) { rpush(taskPrefix(q) + id) }, "refused, running"},
			"its owner": {func(q, id string) { rdb.HSet(t.Context(), taskPrefix(q)+id, "owner", "another") }, "NOT FOUND, running"},
			"its lock":  {func(q, id string) { rpush(rdb.HGet(t.Context(), taskPrefix(q)+id, "unique_key").Val()) }, "OK, gone"},
			"its lease": {func(q, id string) { rdb.ZRem(t.Context(), asynqKey(q, "lease"), id) }, "OK, gone"},
			"the counts": {func(q, _ string) {
				rpush(asynqKey(q, "processed:"+time.Now().UTC().Format(time.DateOnly)))
				rdb.Set(t.Context(), asynqKey(q, "processed"), "x", 0)
			}, "OK, gone"},
		} {
			q := fresh("lone")
			f, end := twoRunning(t, rdb, q)
			a, b := f.ready[0].id, f.ready[1].id
			lock := rdb.HGet(t.Context(), taskPrefix(q)+a, "unique_key").Val()
			c.breaks(q, a)
			reply := end("done")[0]
			got := reply.text
			if reply.err != nil {
				got = "refused"
			}
			if got += ", " + whole(t, rdb, q, a); got != c.want || whole(t, rdb, q, b) != "running" {
				t.Errorf("%s: %s, %v, want %s, the other one is %s", name, got, reply.err, c.want, whole(t, rdb, q, b))
			}
			freed := rdb.Exists(t.Context(), lock).Val() == 0
			if wants := c.want == "OK, gone" && name != "its lock"; freed != wants {
				t.Errorf("%s: its lock is free: %v", name, freed)
			}
			counted, err := rdb.Get(t.Context(), asynqKey(q, "processed")).Result()
			if wants := strings.HasPrefix(c.want, "OK"); wants != (counted == "1") {
				t.Errorf("%s: %q are processed, %v", name, counted, err)
			}
		}
	})
}

// A row whose job cannot be listed, as the waiting jobs are something else, leaves neither the job's data nor its lock behind, and
// becomes a job when that is repaired.
func TestRowThatCannotBeListedComesLater(t *testing.T) {
	t.Parallel()
	rdb := client(t, alone(t).Addrs()) // no other test is to list such a queue
	for _, name := range []string{"pending", "scheduled"} {
		q, db := fresh("unlisted"), pool(t)
		j := newJobs(t, rdb, &Options{Outbox: db}, Queue{Name: q})
		if err := j.EnsureOutbox(t.Context()); err != nil {
			t.Fatal(err)
		}
		opts := []Option{Unique(time.Hour)}
		if name == "scheduled" {
			opts = append(opts, In(time.Hour))
		}
		rdb.Set(t.Context(), asynqKey(q, name), "x", 0)
		if err := j.EnqueueTx(t.Context(), db, note{}, opts...); err != nil {
			t.Fatal(err)
		}
		if _, err := j.relay(t.Context(), awayQueues{}); err != nil || rows(t, db) != 1 {
			t.Fatalf("%d rows are left: %v", rows(t, db), err)
		}
		rdb.Del(t.Context(), asynqKey(q, name))
		if keys := keysOf(t, rdb, q); len(keys) != 0 {
			t.Errorf("%s: %q are left", name, keys)
		}
		if _, err := db.Exec(t.Context(), `UPDATE scaleaware_outbox SET due_at = now()`); err != nil {
			t.Fatal(err)
		}
		if _, err := j.relay(t.Context(), awayQueues{}); err != nil || rows(t, db) != 0 {
			t.Fatalf("%d rows are left: %v", rows(t, db), err)
		}
		if s := status(t, j, q); s.Waiting+s.Delayed != 1 {
			t.Errorf("%s: then %+v", name, s)
		}
	}
}

// A job that Redis refuses takes none along that is enqueued with it, and its caller is told of it alone.
func TestRefusedJobTakesNoneAlong(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("one-of-many")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 2, Unique(time.Hour))
		lock := rdb.HGet(t.Context(), taskPrefix(q)+pendingIDs(t, rdb, q)[0], "unique_key").Val() // of the second
		if _, err := j.Purge(t.Context(), q, Waiting); err != nil {
			t.Fatal(err)
		}
		rdb.RPush(t.Context(), lock, "no lock")
		infos, err := j.EnqueueMany(t.Context(), []Job{note{N: 0}, note{N: 1}, note{N: 2}}, On(q), Unique(time.Hour))
		if err == nil || infos[0].Err != nil || infos[1].Err == nil || infos[2].Err != nil || errors.Is(infos[1].Err, ErrUnconfirmed) {
			t.Errorf("EnqueueMany = %v, %v", infos, err)
		}
		if s := status(t, j, q); s.Waiting != 2 {
			t.Errorf("%d wait", s.Waiting)
		}
	})
}

// halfMoved is a client whose first store finds the second job's key moved away.
type halfMoved struct {
	redis.UniversalClient
	stored []int // jobs of each call
}

func (h *halfMoved) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if sha != storeScript.Hash() {
		return h.UniversalClient.EvalSha(ctx, sha, keys, args...)
	}
	h.stored = append(h.stored, (len(args)-3)/7)
	if len(h.stored) > 1 {
		return h.UniversalClient.EvalSha(ctx, sha, keys, args...)
	}
	cmd := storeScript.Run(ctx, h.UniversalClient, keys, args[:10]...)
	if replies, err := cmd.Slice(); err == nil {
		cmd.SetVal(append(replies, []any{"TRYAGAIN Multiple keys request during rehashing of slot"}))
	}
	return cmd
}

// Of jobs that go together only those are stored again that were refused for a moment: the others may be done by then.
func TestRefusedForAMomentIsStoredAlone(t *testing.T) {
	t.Parallel()
	q, rdb := fresh("moment"), &halfMoved{UniversalClient: client(t, single.Get(t).Addrs())}
	j := newJobs(t, rdb, nil, Queue{Name: q})
	infos, err := j.EnqueueMany(t.Context(), []Job{note{N: 0}, note{N: 1}}, On(q))
	if err != nil || !slices.Equal(rdb.stored, []int{2, 1}) || len(pendingIDs(t, rdb.UniversalClient, q)) != 2 {
		t.Errorf("EnqueueMany = %v, %v, with calls for %v jobs", infos, err, rdb.stored)
	}
}
