package queue

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// full makes a server refuse every write that may need room, until the returned function is called.
func full(t *testing.T, rdb redis.UniversalClient) (room func()) {
	t.Helper()
	set := func(bytes string) {
		if err := rdb.ConfigSet(t.Context(), "maxmemory", bytes).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("1")
	return func() { set("0") }
}

// cutOff makes a server refuse every write, as its replicas are away, until the returned function is called.
func cutOff(t *testing.T, rdb redis.UniversalClient) (back func()) {
	t.Helper()
	set := func(replicas string) {
		if err := rdb.ConfigSet(t.Context(), "min-replicas-to-write", replicas).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("1")
	return func() { set("0") }
}

// While Redis refuses writes nobody extends a lease, so no job is taken from its worker, then or right after it.
func TestReaperTakesNothingWhileWritesAreRefused(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(*testing.T, redis.UniversalClient) func(){"full": full, "without its replicas": cutOff} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, q, ctx := client(t, alone(t).Addrs()), fresh("reaper"), t.Context()
			j := newJobs(t, rdb, nil, Queue{Name: q})
			enqueue(t, j, q, 1)
			f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil)
			keys, args := fetching(q)
			if f.refill(ctx, keys, args); len(f.ready) != 1 {
				t.Fatal("no job came")
			}
			const stall = time.Millisecond
			r := newReaper(newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil), stall)
			if err := r.look(ctx); err != nil {
				t.Fatal(err)
			}
			heal, last := refuse(t, rdb), r.last
			sleep(ctx, 2*stall)
			if err := r.look(ctx); err == nil || !answered(err) {
				t.Errorf("a look when writes are refused: %v", err)
			}
			heal()
			if r.last != last {
				t.Error("a look when writes are refused counts as one")
			}
			r.last = r.last.Add(-4 * reapInterval) // for so long
			if err := r.look(ctx); err != nil {
				t.Fatal(err)
			}
			if s := status(t, j, q); s.Active != 1 || s.Waiting != 0 {
				t.Errorf("the job was taken: %+v", s)
			}
			sleep(ctx, 2*stall)
			if err := r.look(ctx); err != nil {
				t.Fatal(err)
			}
			if s := status(t, j, q); s.Active != 0 || s.Waiting != 1 {
				t.Errorf("then the job of a dead worker did not come back: %+v", s)
			}
		})
	}
}

// What runs when Redis becomes full keeps its lease, and runs once.
func TestJobsOutliveAFullRedis(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, alone(t).Addrs()), fresh("full")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 1, ID("long"))
	var done ledger
	release := make(chan struct{})
	handle := func(_ context.Context, job note) error {
		done.add(job.N)
		<-release
		return nil
	}
	for range 2 {
		w := newWorker(t, j, nil)
		Handle(w, handle)
		start(t, w)
	}
	eventually(t, 10*time.Second, "the job runs", func() bool { return done.n.Load() == 1 })
	room := full(t, rdb)
	lease := func() float64 { return rdb.ZScore(t.Context(), asynqKey(q, "lease"), "long").Val() }
	first, began := lease(), time.Now()
	eventually(t, 40*time.Second, "the lease is extended for longer than a stalled job is left", func() bool { return lease() >= first+18 || done.n.Load() > 1 })
	t.Logf("after %v", time.Since(began))
	close(release)
	eventually(t, 10*time.Second, "it has ended", func() bool { s := status(t, j, q); return s.Active+s.Waiting == 0 })
	room()
	done.check(t, 1, true)
	if s := status(t, j, q); s.Failed+s.Retrying != 0 {
		t.Errorf("%+v", s)
	}
}
