package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Many jobs come with one command and end with one, and each runs once.
func TestFetchesAndEndsGoTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("batch")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		const n = 3000
		jobs := make([]Job, n)
		for i := range jobs {
			jobs[i] = note{N: i}
		}
		if _, err := j.EnqueueMany(t.Context(), jobs, On(q)); err != nil {
			t.Fatal(err)
		}
		w := newWorker(t, j, &WorkerOptions{Concurrency: 50})
		var done ledger
		Handle(w, func(_ context.Context, job note) error { done.add(job.N); return nil })
		before := scriptCalls(t, rdb)
		stop := start(t, w)
		eventually(t, 20*time.Second, "all are done", func() bool { s, err := j.readDepth(t.Context(), q); return err == nil && s.Waiting+s.Active == 0 })
		calls := scriptCalls(t, rdb) - before
		stop()
		done.check(t, n, true)
		t.Logf("%d jobs took %d script calls", n, calls)
		if calls > n { // one by one it is two a job, and those of the test
			t.Errorf("%d jobs took %d script calls", n, calls)
		}
	})
}

func scriptCalls(t *testing.T, rdb redis.UniversalClient) int {
	t.Helper()
	var mu sync.Mutex
	total := 0
	count := func(ctx context.Context, node *redis.Client) error {
		text, err := node.Info(ctx, "commandstats").Result()
		if err != nil {
			return err
		}
		var n int
		if _, err := fmt.Sscanf(infoField(text, "cmdstat_evalsha"), "calls=%d", &n); err == nil {
			mu.Lock()
			total += n
			mu.Unlock()
		}
		return nil
	}
	var err error
	switch c := rdb.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(t.Context(), count)
	case *redis.Client:
		err = count(t.Context(), c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return total
}

// Jobs that were fetched and had not started go back, in their order, with no attempt counted.
func TestStopReturnsWhatHasNotStarted(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("unstarted")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 20)
		before := pendingIDs(t, rdb, q)
		f := newFetcher(j, j.queues[0], 0, newSlots(10, j.queues), 10, time.Millisecond, nil)
		keys := []string{asynqKey(q, "pending"), asynqKey(q, "paused"), asynqKey(q, "active"), asynqKey(q, "lease")}
		if err := f.fetch(t.Context(), keys, []any{time.Now().Add(30 * time.Second).Unix(), taskPrefix(q)}).Err(); err != nil {
			t.Fatal(err)
		}
		if s := status(t, j, q); s.Active != 10 || s.Waiting != 10 || len(f.ready) != 9 || f.slots.busy() != 10 {
			t.Fatalf("fetched %d, %d ready, %d slots: %+v", s.Active, len(f.ready), f.slots.busy(), s)
		}
		f.unready()
		after := pendingIDs(t, rdb, q)
		if s := status(t, j, q); s.Active != 1 || s.Waiting != 19 || s.OldestSeconds == nil || f.slots.busy() != 1 {
			t.Fatalf("%d slots are taken: %+v", f.slots.busy(), s)
		}
		for i := range after { // the head is at the end
			if after[i] != before[i] {
				t.Fatalf("the order has changed at %d", i)
			}
		}
		// Those that were ready for too long, because the process stood still, may be somebody else's by now.
		if err := f.fetch(t.Context(), keys, []any{time.Now().Add(30 * time.Second).Unix(), taskPrefix(q)}).Err(); err != nil {
			t.Fatal(err)
		}
		for _, job := range f.ready {
			f.tickets[job.id].since = time.Now().Add(-time.Minute)
		}
		if err := f.fetch(t.Context(), keys, nil).Err(); !isNil(err) {
			t.Errorf("a job was handed over a minute late: %v", err)
		}
		if s := status(t, j, q); s.Active != 2 {
			t.Errorf("they did not go back: %+v", s)
		}
	})
}

// A worker that was taken for dead does not end a job that is another's by now.
func TestLateEndIsFenced(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("late")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 1)
		args := []any{time.Now().Add(30 * time.Second).Unix(), taskPrefix(q)}
		keys := []string{asynqKey(q, "pending"), asynqKey(q, "paused"), asynqKey(q, "active"), asynqKey(q, "lease")}
		slow, quick := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil), newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil)
		if err := slow.fetch(t.Context(), keys, args).Err(); err != nil {
			t.Fatal(err)
		}
		id := rdb.LIndex(t.Context(), asynqKey(q, "active"), 0).Val()
		r := newReaper(quick, time.Second)
		if err := r.reap(t.Context(), id, fmt.Sprint(args[0])); err != nil {
			t.Fatal(err)
		}
		if err := quick.fetch(t.Context(), keys, args).Err(); err != nil {
			t.Fatal(err)
		}
		done := []string{asynqKey(q, "active"), asynqKey(q, "lease"), taskPrefix(q) + id, asynqKey(q, "processed:2026-01-01"), asynqKey(q, "processed")}
		ended := func(f *fetcher) { f.EvalSha(t.Context(), "", done, id, int64(1<<40), int64(1<<60)) }
		ended(slow)
		if s := status(t, j, q); s.Active != 1 || rdb.Exists(t.Context(), taskPrefix(q)+id).Val() != 1 {
			t.Errorf("a late end took the job from its worker: %+v", s)
		}
		ended(quick)
		if s := status(t, j, q); s.Active != 0 || rdb.Exists(t.Context(), taskPrefix(q)+id).Val() != 0 {
			t.Errorf("its own worker could not end it: %+v", s)
		}
		if slow.slots.busy() != 0 || quick.slots.busy() != 0 {
			t.Errorf("%d and %d slots are left", slow.slots.busy(), quick.slots.busy())
		}
	})
}

// A delayed job is never early, and not much late.
func TestDelayedJobsComeInTime(t *testing.T) {
	q := fresh("delayed")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	w := newWorker(t, j, &WorkerOptions{Concurrency: 40})
	type came struct{ early, late time.Duration }
	var mu sync.Mutex
	due := map[int]time.Time{}
	var worst came
	var n atomic.Int64
	Handle(w, func(_ context.Context, job note) error {
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		worst.early, worst.late = max(worst.early, due[job.N].Sub(now)), max(worst.late, now.Sub(due[job.N]))
		n.Add(1)
		return nil
	})
	start(t, w)
	for i := range 40 {
		at := time.Now().Add(time.Duration(100+i*37) * time.Millisecond)
		mu.Lock()
		due[i] = at
		mu.Unlock()
		if _, err := j.Enqueue(t.Context(), note{N: i}, On(q), At(at)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, "all came", func() bool { return n.Load() == 40 })
	t.Logf("latest by %v", worst.late)
	if worst.early > 0 {
		t.Errorf("a job came %v early", worst.early)
	}
	if worst.late > 3*time.Second { // asynq: 5s and more
		t.Errorf("a job came %v late", worst.late)
	}
}

// Failed jobs are all kept: asynq deletes the oldest beyond 9,999.
func TestNoFailedJobIsCut(t *testing.T) {
	q := fresh("dead")
	rdb := client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q})
	n := min(many(t, 10_500), 50_000)
	jobs := make([]Job, n)
	for i := range jobs {
		jobs[i] = note{N: i}
	}
	if _, err := j.EnqueueMany(t.Context(), jobs, On(q), MaxRetry(0)); err != nil {
		t.Fatal(err)
	}
	var told atomic.Int64
	w := newWorker(t, j, &WorkerOptions{Concurrency: 100, OnDead: func(_ context.Context, d DeadJob) {
		if d.Kind == "test.note" && d.Error == "no use" && d.Queue == q {
			told.Add(1)
		}
	}})
	Handle(w, func(context.Context, note) error { return errors.New("no use") })
	start(t, w)
	eventually(t, 180*time.Second, "all have failed", func() bool {
		s, err := j.readDepth(t.Context(), q)
		return err == nil && s.Failed == n && told.Load() == int64(n)
	})
	if keys, err := rdb.HGet(t.Context(), taskPrefix(q)+rdb.ZRange(t.Context(), asynqKey(q, "archived"), 0, 0).Val()[0], "state").Result(); keys != "archived" || err != nil {
		t.Errorf("the oldest is %q, %v", keys, err)
	}
	// Those of a kind, some, and the rest, a step at a time.
	for _, c := range []struct {
		which *RetryFailed
		want  int
	}{{&RetryFailed{Kind: "other"}, 0}, {&RetryFailed{Before: time.Now().Add(-time.Hour)}, 0}, {&RetryFailed{Kind: "test.note", Most: 700}, 700}} {
		if got, err := j.RetryFailed(t.Context(), q, c.which); got != c.want || err != nil {
			t.Errorf("RetryFailed(%+v) = %d, %v, want %d", c.which, got, err, c.want)
		}
	}
	if _, err := j.RetryFailed(t.Context(), q, &RetryFailed{PerSecond: -1}); err == nil {
		t.Error("a pace below zero was taken")
	}
}
