package queue

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// idle runs a worker on j whose handler does nothing, and sees its starts.
func idle(t *testing.T, j *Jobs, o *WorkerOptions, seen *starts) (stop func()) {
	t.Helper()
	w := newWorker(t, j, o)
	w.onUse = seen.add
	Handle(w, func(context.Context, note) error { return nil })
	return start(t, w)
}

// most returns the most starts in any window of a length.
func (s *starts) most(queue string, window time.Duration) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.stamps[queue])
	slices.Sort(all)
	most, first := 0, 0
	for i := range all {
		for all[i]-all[first] >= window.Microseconds() {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

func (s *starts) count(queue string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.stamps[queue])
}

// since returns how many starts are later than a time of this machine, whose clock is also Redis's.
func (s *starts) since(queue string, at time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stamp := range s.stamps[queue] {
		if stamp > at.UnixMicro() {
			n++
		}
	}
	return n
}

// stamp returns when the n-th start was, from 0.
func (s *starts) stamp(queue string, n int) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Sorted(slices.Values(s.stamps[queue]))
	return time.UnixMicro(all[n])
}

// A change of limits reaches all workers with their next look, in either direction, and no window holds more than either.
func TestLimitsChangeWhileJobsRun(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("change")
		declared := Queue{Name: q, Rate: Rate{Max: 10, Per: time.Second}}
		j := newJobs(t, rdb, nil, declared)
		fill(t, j, q, 1000)
		var seen starts
		for range 2 { // each its own Jobs, as in two processes
			idle(t, newJobs(t, rdb, nil, declared), &WorkerOptions{Concurrency: 20}, &seen)
		}
		eventually(t, 20*time.Second, "the first window is used up", func() bool { return seen.count(q) >= 10 })
		if err := j.SetLimits(t.Context(), q, Limits{Rate: Rate{Max: 100, Per: time.Second}}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, "100 have started", func() bool { return seen.count(q) >= 100 })
		if took := seen.stamp(q, 99).Sub(seen.stamp(q, 9)); took > 8*time.Second { // 9s by the old limit
			t.Errorf("with the new limit 90 started within %v", took)
		}
		if most := seen.most(q, time.Second); most > 100 {
			t.Errorf("%d starts in a second, the limit is 100", most)
		}
		// Whoever starts now has the declaration and goes by what was set.
		idle(t, newJobs(t, rdb, nil, declared), nil, &seen)
		if l := status(t, j, q).RateLimit; l == nil || l.Max != 100 || l.PerSeconds != 1 || l.Smooth || l.Declared || l.Used > 100 {
			t.Errorf("the status says %+v", l)
		}
		if err := j.SetLimits(t.Context(), q, Limits{Rate: Rate{Max: 5, Per: time.Second}}); err != nil {
			t.Fatal(err)
		}
		set := time.Now()
		sleep(t.Context(), 1200*time.Millisecond)
		if got, took := seen.since(q, set), time.Since(set); got > 5*(int(took.Seconds())+1) {
			t.Errorf("%d starts in %v at 5 a second", got, took)
		}
		if err := j.ResetLimits(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if l, set, err := j.LimitsOf(t.Context(), q); err != nil || set || l.Rate != declared.Rate {
			t.Errorf("after the reset: %+v, %v, %v", l, set, err)
		}
	})
}

// Two declarations of a deployment under way are one limit: the last.
func TestDeclarationsThatDifferAreOneLimit(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("differ")
	small, large := newJobs(t, rdb, nil, Queue{Name: q, Rate: Rate{Max: 10, Per: time.Second}}), newJobs(t, rdb, nil, Queue{Name: q, Rate: Rate{Max: 40, Per: time.Second}})
	fill(t, small, q, 300)
	var seen starts
	idle(t, small, nil, &seen)
	eventually(t, 5*time.Second, "the old one has started some", func() bool { return seen.count(q) >= 10 })
	idle(t, large, nil, &seen)
	eventually(t, 10*time.Second, "many have started", func() bool { return seen.count(q) >= 130 })
	if most := seen.most(q, time.Second); most > 40 {
		t.Errorf("%d starts in a second, the limit is 40", most)
	}
	// Limits that Redis has lost come back with the next look.
	if err := rdb.Del(t.Context(), ownKey(q, "limits")).Err(); err != nil {
		t.Fatal(err)
	}
	sleep(t.Context(), 1100*time.Millisecond)
	if most := seen.most(q, time.Second); most > 40 {
		t.Errorf("%d starts in a second without the stored limits", most)
	}
}

func TestSmoothStartsDoNotComeAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("smooth")
		j := newJobs(t, rdb, nil, Queue{Name: q, Rate: Rate{Max: 100, Per: time.Second}, Smooth: true})
		fill(t, j, q, 400)
		var seen starts
		for range 2 {
			idle(t, j, &WorkerOptions{Concurrency: 30}, &seen)
		}
		eventually(t, 20*time.Second, "200 have started", func() bool { return seen.count(q) >= 200 })
		if most := seen.most(q, time.Second); most > 100 {
			t.Errorf("%d starts in a second, the limit is 100", most)
		}
		if most := seen.most(q, 50*time.Millisecond); most > 5+5+1 { // what comes evenly, and a twentieth at once
			t.Errorf("%d starts in 50ms, smoothed", most)
		}
	})
}

// The bound on running jobs holds over workers, and a dead one's jobs do not use it up for good.
func TestConcurrencyOfTheFleet(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("concurrent")
		j := newJobs(t, rdb, nil, Queue{Name: q, Concurrency: 3})
		enqueue(t, j, q, 60)
		var running, most, done atomic.Int64
		for range 3 {
			w := newWorker(t, j, &WorkerOptions{Concurrency: 10})
			Handle(w, func(context.Context, note) error {
				n := running.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				sleep(t.Context(), 5*time.Millisecond)
				running.Add(-1)
				done.Add(1)
				return nil
			})
			start(t, w)
		}
		eventually(t, 20*time.Second, "all are done", func() bool { return done.Load() == 60 })
		if most.Load() != 3 {
			t.Errorf("%d jobs ran at once, want 3", most.Load())
		}
	})
}

// A job that waits for a limit for longer than it may run waits in its place: it costs no attempt and no part of its timeout.
// SCALEAWARE_LIMITED is how long: 60s in make jobs.
func TestWaitingForALimitCostsNothing(t *testing.T) {
	t.Parallel()
	wait, err := time.ParseDuration(cmp.Or(os.Getenv("SCALEAWARE_LIMITED"), "6s"))
	if err != nil {
		t.Fatal(err)
	}
	const timeout = 2 * time.Second
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("patient")
	j := newJobs(t, rdb, nil, Queue{Name: q, Rate: Rate{Max: 1, Per: wait}})
	enqueue(t, j, q, 2, MaxRetry(0), Timeout(timeout))
	type run struct {
		at, deadline time.Time
		retried      int
	}
	runs := make(chan run, 2)
	var seen starts
	w := newWorker(t, j, &WorkerOptions{Concurrency: 2})
	w.onUse = seen.add
	Handle(w, func(ctx context.Context, _ note) error {
		deadline, _ := ctx.Deadline()
		retried, _ := asynq.GetRetryCount(ctx)
		runs <- run{time.Now(), deadline, retried}
		return nil
	})
	start(t, w)
	<-runs
	for due := seen.stamp(q, 0).Add(wait); ; sleep(t.Context(), wait/6) {
		s := status(t, j, q)
		if time.Now().After(due) { // it may have begun
			break
		}
		if s.Waiting != 1 || s.Retrying != 0 || s.Failed != 0 {
			t.Errorf("while it waits: %+v", s)
		}
	}
	second, began := <-runs, seen.stamp(q, 1)
	if pause := began.Sub(seen.stamp(q, 0)); pause < wait {
		t.Errorf("the second started %v after the first", pause)
	}
	if second.retried != 0 || second.deadline.Sub(began) < timeout-100*time.Millisecond || second.deadline.Sub(second.at) > timeout {
		t.Errorf("the second was fetched at %v and ran at %v, may run until %v, want %v, after %d attempts", began, second.at, second.deadline, timeout, second.retried)
	}
	eventually(t, 20*time.Second, "both are done", func() bool { s := status(t, j, q); return s.Waiting+s.Active == 0 })
	if s := status(t, j, q); s.Failed != 0 || s.Retrying != 0 {
		t.Errorf("at the end: %+v", s)
	}
}

func TestThrottle(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("throttle")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 10, MaxRetry(0))
	var mu sync.Mutex
	var ran []time.Time
	w := newWorker(t, j, &WorkerOptions{Concurrency: 1})
	Handle(w, func(ctx context.Context, job note) error {
		mu.Lock()
		defer mu.Unlock()
		if ran = append(ran, time.Now()); len(ran) == 1 {
			return j.Throttle(ctx, q, 700*time.Millisecond) // the answer was 429
		}
		return nil
	})
	start(t, w)
	eventually(t, 20*time.Second, "all are done", func() bool { mu.Lock(); defer mu.Unlock(); return len(ran) == 10 })
	if pause := ran[1].Sub(ran[0]); pause < 690*time.Millisecond || pause > 10*time.Second {
		t.Errorf("the next job started %v after a throttle of 700ms", pause)
	}
	if s := status(t, j, q); s.Failed != 0 || s.Retrying != 0 {
		t.Errorf("throttling cost attempts: %+v", s)
	}
	ctx := t.Context()
	if err := errors.Join(j.Throttle(ctx, q, time.Hour), j.Throttle(ctx, q, time.Second)); err != nil {
		t.Fatal(err)
	}
	if s := status(t, j, q); s.ThrottledSeconds == nil || *s.ThrottledSeconds < 3000 {
		t.Errorf("a shorter throttle took the place of a longer one: %v", s.ThrottledSeconds)
	}
	if err := j.Throttle(ctx, q, 0); err != nil {
		t.Fatal(err)
	}
	if s := status(t, j, q); s.ThrottledSeconds != nil {
		t.Error("zero did not end it")
	}
	for _, d := range []time.Duration{-1, 25 * time.Hour} {
		if err := j.Throttle(ctx, q, d); err == nil || !strings.Contains(err.Error(), "want 0 to 24h") {
			t.Errorf("Throttle(%v) = %v", d, err)
		}
	}
}

// An isolated queue neither waits for others' slots nor takes any.
func TestIsolatedQueue(t *testing.T) {
	t.Parallel()
	shared, alone := fresh("shared"), fresh("alone")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: shared}, Queue{Name: alone, Isolated: 2})
	enqueue(t, j, shared, 20)
	enqueue(t, j, alone, 20)
	release := make(chan struct{})
	var busy [2]atomic.Int64
	w := newWorker(t, j, &WorkerOptions{Concurrency: 5, DrainTimeout: time.Second})
	Handle(w, func(ctx context.Context, _ note) error {
		i := 0
		if AttemptFrom(ctx).Queue == alone {
			i = 1
		}
		busy[i].Add(1)
		<-release
		return nil
	})
	start(t, w)
	eventually(t, 5*time.Second, "both have what is theirs", func() bool { return busy[0].Load() == 5 && busy[1].Load() == 2 })
	sleep(t.Context(), 300*time.Millisecond)
	if busy[0].Load() != 5 || busy[1].Load() != 2 {
		t.Errorf("%d shared and %d isolated jobs run, want 5 and 2", busy[0].Load(), busy[1].Load())
	}
	close(release)
}

func TestBadLimits(t *testing.T) {
	t.Parallel()
	q := fresh("bad")
	rdb := client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q, Concurrency: 7})
	for _, l := range []Limits{{Rate: Rate{Max: 1}}, {Smooth: true}, {Concurrency: -1}, {Rate: Rate{Max: 1 << 20, Per: time.Second}}} {
		if err := j.SetLimits(t.Context(), q, l); err == nil {
			t.Errorf("SetLimits(%+v) was taken", l)
		}
	}
	if err := j.SetLimits(t.Context(), "no-such-queue", Limits{}); !errors.Is(err, ErrUnknownQueue) {
		t.Errorf("SetLimits of an unknown queue = %v", err)
	}
	if l, set, err := j.LimitsOf(t.Context(), q); err != nil || set || l.Concurrency != 7 {
		t.Errorf("LimitsOf = %+v, %v, %v", l, set, err)
	}
	if n, err := rdb.Exists(t.Context(), ownKey(q, "limits")).Result(); n != 0 || err != nil {
		t.Errorf("bad limits wrote something: %v", err)
	}
}

// A scale rule of an isolated queue changes the slots of its own, and no others.
func TestScaleToOfAnIsolatedQueue(t *testing.T) {
	t.Parallel()
	q, other := fresh("isolated"), fresh("shared")
	rdb := client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q, Isolated: 2}, Queue{Name: other})
	enqueue(t, j, q, 12)
	w := newWorker(t, j, &WorkerOptions{Concurrency: 1, MaxConcurrency: 8})
	var running, most atomic.Int64
	gates := make(chan struct{})
	Handle(w, func(context.Context, note) error {
		most.Store(max(most.Load(), running.Add(1)))
		<-gates
		running.Add(-1)
		return nil
	})
	start(t, w)
	defer close(gates)
	scale := func(n int) {
		t.Helper()
		if err := w.ScaleTo(t.Context(), Decision{Queue: q, Workers: n}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 10*time.Second, "2 run", func() bool { return running.Load() == 2 })
	scale(5)
	eventually(t, 10*time.Second, "5 run", func() bool { return running.Load() == 5 })
	if n := w.slots.sizeOf(1); n != 1 {
		t.Errorf("the shared slots are %d", n)
	}
	scale(0)
	for range 5 {
		gates <- struct{}{}
	}
	eventually(t, 10*time.Second, "none runs", func() bool { return running.Load() == 0 && w.Busy() == 0 })
	scale(99)
	eventually(t, 10*time.Second, "the 7 that are left run", func() bool { return running.Load() == 7 })
	if n := w.slots.sizeOf(0); n != 8 || most.Load() != 7 {
		t.Errorf("%d slots, %d ran at most", n, most.Load())
	}
	if err := w.ScaleTo(t.Context(), Decision{Queue: q, Workers: -1}); err == nil {
		t.Error("-1 slots were accepted")
	}
}

// Limits hold for a fetch of one job, too, which has a way of its own where there are none.
func TestLimitsOfALoneFetch(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	for name, declared := range map[string]Queue{
		"rate":        {Rate: Rate{Max: 1, Per: time.Hour}},
		"concurrency": {Concurrency: 1},
	} {
		declared.Name = fresh("lone")
		j := newJobs(t, rdb, nil, declared)
		if err := j.seed(t.Context(), declared); err != nil {
			t.Fatal(err)
		}
		enqueue(t, j, declared.Name, 2)
		f := newFetcher(j, j.queues[0], 0, newSlots(2, j.queues), 1+unended, time.Millisecond, nil)
		keys, args := fetching(declared.Name)
		for call, want := range []int{1, 0} {
			f.pops++
			reply, err := f.pop(t.Context(), keys, args, 1)
			if f.known = f.pops; len(reply.jobs) != want || err != nil {
				t.Errorf("%s: call %d got %d jobs, %v", name, call, len(reply.jobs), err)
			}
		}
	}
}
