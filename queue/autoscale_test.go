package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestScaleRuleMistakes(t *testing.T) {
	t.Parallel()
	j := newJobs(t, client(t, []string{"127.0.0.1:1"}), nil, Queue{Name: "q"}, Queue{Name: "r"}, Queue{Name: "s"})
	hook := func(context.Context, Decision) error { return nil }
	good := ScaleRule{Queue: "q", Above: 1, Up: 1}
	latency := ScaleRule{Queue: "r", Latency: time.Minute, Max: 9}
	for _, bad := range []ScaleRule{
		{}, {Queue: "other", Above: 1, Up: 1}, {Queue: "q", Up: 1}, {Queue: "q", Above: 1}, {Queue: "q", Above: 1, Below: 2, Up: 1},
		{Queue: "q", Above: 1, Up: 1, Down: 2}, {Queue: "q", Above: 1, Up: 1, Max: 3}, {Queue: "q", Above: 1, Up: 1, Slots: -1},
		{Queue: "q", Latency: time.Millisecond, Max: 9}, {Queue: "q", Latency: time.Minute}, {Queue: "q", Latency: time.Minute, Max: 9, Above: 1},
		{Queue: "q", Latency: time.Minute, Max: 9, Min: 10}, {Queue: "q", Latency: time.Minute, Max: 9, Utilisation: 2},
		{Queue: "q", Latency: time.Minute, Max: 9, Slots: -1}, {Queue: "q", Latency: time.Minute, Max: 9, Run: -1}, {Queue: "q", Latency: -1, Max: 9},
	} {
		if err := j.Autoscale(bad, hook, nil); err == nil || !strings.HasPrefix(err.Error(), "queue: ") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if j.Autoscale(good, nil, nil) == nil || j.Autoscale(good, hook, &ScaleOptions{Interval: time.Minute}) == nil {
		t.Error("a nil hook, or an interval longer than the lease, was accepted")
	}
	for _, rule := range []ScaleRule{good, latency} {
		if err := j.Autoscale(rule, hook, nil); err != nil {
			t.Fatal(err)
		}
		if j.Autoscale(rule, hook, nil) == nil {
			t.Error("a second rule for one queue was accepted")
		}
	}
	if err := j.Autoscale(ScaleRule{Queue: "s", Above: 1, Up: 1}, nil, &ScaleOptions{DryRun: true}); err != nil {
		t.Errorf("a dry run without a hook: %v", err)
	}
}

// hooked records calls.
type hooked struct {
	mu       sync.Mutex
	calls    []Decision
	failures int
	called   chan Decision
}

func (h *hooked) hook(_ context.Context, d Decision) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failures > 0 {
		h.failures--
		return errors.New("not now")
	}
	h.calls = append(h.calls, d)
	if h.called != nil {
		h.called <- d
	}
	return nil
}

func (h *hooked) workers() (n []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.calls {
		n = append(n, d.Workers)
	}
	return n
}

func scaling(t *testing.T, j *Jobs, queue string) *Scaling {
	t.Helper()
	s, err := j.Scaling(t.Context(), queue, keptDecisions)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAutoscaleCallsHookOnce has three processes' worth of Jobs; one of them leads. The hook's first failure is
// tried again, under a higher generation.
func TestAutoscaleCallsHookOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("scale")
		h := &hooked{failures: 1}
		j := newJobs(t, rdb, nil, Queue{Name: q})
		fill(t, j, q, 11)
		for range 3 {
			j := newJobs(t, rdb, nil, Queue{Name: q})
			if err := j.Autoscale(ScaleRule{Queue: q, Above: 10, Up: 5, Below: 3, Down: 2}, h.hook, &ScaleOptions{Interval: 20 * time.Millisecond}); err != nil {
				t.Fatal(err)
			}
			start(t, j)
		}
		applied := func(n int) func() bool {
			return func() bool { s := scaling(t, j, q); return s.Applied && *s.Desired == n }
		}
		eventually(t, 5*time.Second, "5 workers are wanted", applied(5))
		if n := status(t, j, q).DesiredWorkers; n == nil || *n != 5 {
			t.Errorf("the status says %v", n)
		}
		if n, err := j.Purge(t.Context(), q, Waiting); n != 11 || err != nil {
			t.Fatalf("Purge = %d, %v", n, err)
		}
		eventually(t, 5*time.Second, "2 workers are wanted", applied(2))
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.calls) != 2 || h.calls[0].Workers != 5 || h.calls[1].Workers != 2 || h.calls[0].Generation >= h.calls[1].Generation {
			t.Errorf("the hook was called with %+v, want 5 and then 2", h.calls)
		}
		kept := scaling(t, j, q).Decisions
		if n := len(kept); n < 3 || kept[n-1].Generation >= kept[n-2].Generation || kept[n-1].Reason != ReasonAbove || kept[0].Reason != ReasonBelow || kept[0].Inputs.Due != 0 {
			t.Errorf("the failed call and the two others are to be explained, in their order: %+v", kept)
		}
	})
}

// TestCrossingCallsHook measures the time from the crossing of a threshold to the hook (A1). Other tests run at the same time, so
// the best of up to ten counts.
func TestCrossingCallsHook(t *testing.T) {
	t.Parallel()
	q := fresh("crossing")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	h := &hooked{called: make(chan Decision)}
	const poll = time.Second
	if err := j.Autoscale(ScaleRule{Queue: q, Above: 1000, Up: 5, Below: 100, Down: 2}, h.hook, &ScaleOptions{Interval: poll}); err != nil {
		t.Fatal(err)
	}
	start(t, j)
	if d := <-h.called; d.Workers != 2 {
		t.Fatalf("at first %+v", d)
	}
	best := time.Hour
	for round := 0; round < 2 || best > poll+time.Second && round < 10; round++ {
		fill(t, j, q, 1001)
		began := time.Now()
		d := <-h.called
		took := time.Since(began)
		t.Logf("hook after %v, poll %v", took, poll)
		best = min(best, took)
		if d.Workers != 5 || d.Reason != ReasonAbove {
			t.Errorf("round %d: %d workers, %s", round, d.Workers, d.Reason)
		}
		if _, err := j.Purge(t.Context(), q, Waiting); err != nil {
			t.Fatal(err)
		}
		if d := <-h.called; d.Workers != 2 {
			t.Errorf("round %d: %d workers in the end", round, d.Workers)
		}
	}
	if best > poll+time.Second {
		t.Errorf("the hook came %v after the crossing at best, want %v at most", best, poll+time.Second)
	}
}

// TestResizeByHook measures the time from a decision to more jobs running in this process (A1). A worker's slots are
// the rule's workers. Other tests run at the same time, so the best of up to twenty counts.
func TestResizeByHook(t *testing.T) {
	t.Parallel()
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: fresh("hookresize")})
	best := time.Hour
	for try := 0; try < 20 && best > 50*time.Millisecond; try++ {
		took := resizeOnce(t, j, j.queues[0].Name)
		t.Logf("from 2 to 8 jobs in %v", took)
		best = min(best, took)
	}
	if best > 50*time.Millisecond {
		t.Errorf("a resize took %v at best, want 50ms at most", best)
	}
}

func resizeOnce(t *testing.T, j *Jobs, q string) time.Duration {
	t.Helper()
	w := newWorker(t, j, &WorkerOptions{Concurrency: 2, MaxConcurrency: 8, DrainTimeout: time.Millisecond, Grace: time.Second})
	begun := make(chan time.Time, 12)
	Handle(w, func(ctx context.Context, job note) error {
		begun <- time.Now()
		<-ctx.Done()
		return ctx.Err()
	})
	stop := start(t, w)
	defer stop()
	fill(t, j, q, 12)
	<-begun
	<-begun
	decided := time.Now()
	if err := w.ScaleTo(t.Context(), Decision{Queue: q, Workers: 99}); err != nil {
		t.Fatal(err)
	}
	var last time.Time
	for range 6 {
		last = <-begun
	}
	if err := w.ScaleTo(t.Context(), Decision{Workers: -1}); err == nil {
		t.Error("a decision for no number was accepted")
	}
	return last.Sub(decided)
}

// TestOvertakenLeader has a leader that stands still in the middle of a decision while another one takes over.
func TestOvertakenLeader(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, q := t.Context(), fresh("overtaken")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		fill(t, j, q, 11)
		rule := ScaleRule{Queue: q, Above: 10, Up: 5, Below: 3, Down: 2}
		var h hooked
		other := newScaler(j, rule, h.hook, ScaleOptions{}, time.Minute)
		still := ScaleOptions{Bottleneck: func(ctx context.Context) (string, error) { // between its reading and its storing
			if err := rdb.Del(ctx, ownKey(q, "scaler")).Err(); err != nil { // the lease has ended
				return "", err
			}
			return "", j.lookAfter(ctx, other, time.Now())
		}}
		one := newScaler(j, rule, h.hook, still, time.Minute)
		if err := j.lookAfter(ctx, one, time.Now()); !errors.Is(err, errOvertaken) {
			t.Errorf("the overtaken leader: %v", err)
		}
		if n := h.workers(); len(n) != 1 || n[0] != 5 {
			t.Errorf("the hook was called with %v, want 5 once", n)
		}
		// Once more, while the other one finds nothing to change, so that its generation stays.
		rdb.Del(ctx, asynqKey(q, "pending"))
		one.opts.Bottleneck = func(ctx context.Context) (string, error) {
			fill(t, j, q, 11)
			if err := rdb.Del(ctx, ownKey(q, "scaler")).Err(); err != nil {
				return "", err
			}
			return "", j.lookAfter(ctx, other, time.Now())
		}
		rdb.Del(ctx, ownKey(q, "scaler"))
		if err := j.lookAfter(ctx, one, time.Now()); !errors.Is(err, errOvertaken) {
			t.Errorf("the leader that was overtaken by one who holds: %v", err)
		}
		if n := h.workers(); len(n) != 1 || *scaling(t, j, q).Desired != 5 {
			t.Errorf("the hook was called with %v, %d workers are wanted", n, *scaling(t, j, q).Desired)
		}
		// It got as far as the hook before it stood still: the clock says so before its context does.
		one.opts.Bottleneck = nil
		rdb.Del(ctx, ownKey(q, "scaler"), asynqKey(q, "pending"))
		one.lead = time.Minute
		expired, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
		defer cancel()
		if err := j.callHook(lateContext{ctx, expired}, one, Decision{Queue: q}); !errors.Is(err, errOvertaken) {
			t.Errorf("a leader that does not trust itself any more: %v", err)
		}
		if n := h.workers(); len(n) != 1 {
			t.Errorf("the hook was called with %v", n)
		}
	})
}

// lateContext has a deadline that its timer has not noticed, as after a SIGSTOP.
type lateContext struct {
	context.Context
	late context.Context
}

func (c lateContext) Deadline() (time.Time, bool) { return c.late.Deadline() }

// TestNextLeaderCallsWhatTheLastOneDidNot has a leader die between its decision and the hook.
func TestNextLeaderCallsWhatTheLastOneDidNot(t *testing.T) {
	t.Parallel()
	ctx, q := t.Context(), fresh("successor")
	rdb := client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q})
	fill(t, j, q, 11)
	rule := ScaleRule{Queue: q, Above: 10, Up: 5, Below: 3, Down: 2}
	died := errors.New("died")
	first := newScaler(j, rule, func(context.Context, Decision) error { return died }, ScaleOptions{}, time.Minute)
	if err := j.lookAfter(ctx, first, time.Now()); !errors.Is(err, died) {
		t.Fatal(err)
	}
	if s := scaling(t, j, q); s.Applied || *s.Desired != 5 {
		t.Errorf("after a call that failed: %+v", s)
	}
	rdb.Del(ctx, ownKey(q, "scaler"))
	var h hooked
	next := newScaler(j, rule, h.hook, ScaleOptions{}, time.Minute)
	for range 3 {
		if err := j.lookAfter(ctx, next, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	s := scaling(t, j, q)
	if n := h.workers(); len(n) != 1 || n[0] != 5 || !s.Applied || s.Generation != h.calls[0].Generation {
		t.Errorf("the next leader called %v, now %+v", n, s)
	}
	// A failover that has forgotten the last decisions lets no generation come again.
	rdb.Del(ctx, scaleKey(q))
	if err := j.lookAfter(ctx, next, time.Now()); err != nil {
		t.Fatal(err)
	}
	if n := len(h.calls); n != 2 || h.calls[1].Generation <= h.calls[0].Generation {
		t.Errorf("after a loss: %+v", h.calls)
	}
}

// TestDryRun decides and tells, and calls nothing; when it ends, what it last wanted is done.
func TestDryRun(t *testing.T) {
	t.Parallel()
	ctx, q := t.Context(), fresh("dry")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	fill(t, j, q, 11)
	var h hooked
	s := newScaler(j, ScaleRule{Queue: q, Above: 10, Up: 5, Below: 3, Down: 2}, h.hook, ScaleOptions{DryRun: true}, time.Minute)
	for range 3 {
		if err := j.lookAfter(ctx, s, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if got := scaling(t, j, q); len(h.calls) != 0 || *got.Desired != 5 || got.Applied || len(got.Decisions) != 1 || !got.Decisions[0].DryRun {
		t.Errorf("a dry run made %d calls, %+v", len(h.calls), got)
	}
	s.opts.DryRun = false
	if err := j.lookAfter(ctx, s, time.Now()); err != nil || len(h.calls) != 1 || h.calls[0].Workers != 5 {
		t.Errorf("after the dry run %+v, %v", h.calls, err)
	}
}

// TestBottleneck holds while what jobs need is saturated, and while nobody can tell.
func TestBottleneck(t *testing.T) {
	t.Parallel()
	ctx, q := t.Context(), fresh("bottleneck")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	var h hooked
	var stuck string
	var broken error
	s := newScaler(j, ScaleRule{Queue: q, Above: 10, Up: 5, Below: 3, Down: 2}, h.hook, ScaleOptions{
		Bottleneck: func(context.Context) (string, error) { return stuck, broken },
	}, time.Minute)
	look := func(want int, reason Reason) {
		t.Helper()
		if err := j.lookAfter(ctx, s, time.Now()); err != nil {
			t.Fatal(err)
		}
		if got := scaling(t, j, q); *got.Desired != want || got.Decisions[0].Reason != reason || got.Decisions[0].Inputs.Bottleneck != stuck && broken == nil {
			t.Errorf("%d, %+v; want %d, %s", *got.Desired, got.Decisions[0], want, reason)
		}
	}
	look(2, ReasonBelow)
	fill(t, j, q, 11)
	stuck = "database primary"
	look(2, ReasonSaturated)
	stuck, broken = "", errors.New("who knows")
	look(2, ReasonSaturated)
	broken = nil
	look(5, ReasonAbove)
	if _, err := j.Pause(ctx, q, nil); err != nil {
		t.Fatal(err)
	}
	if err := j.rdb.HSet(ctx, scaleKey(q), "state", `{"decided":true,"workers":2}`).Err(); err != nil {
		t.Fatal(err)
	}
	look(2, ReasonPaused)
}

// A full Redis keeps no autoscaler from making workers more, which is what may empty it, nor from knowing that its hook has succeeded.
func TestAutoscaleOnAFullRedis(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, alone(t).Addrs()), fresh("full")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	fill(t, j, q, 11)
	var h hooked
	if err := j.Autoscale(ScaleRule{Queue: q, Above: 10, Up: 5, Below: 3, Down: 2}, h.hook, nil); err != nil {
		t.Fatal(err)
	}
	room := full(t, rdb)
	for range 2 {
		if err := j.lookAfter(t.Context(), j.scalers[0], time.Now()); err != nil {
			t.Error(err)
		}
	}
	s := scaling(t, j, q)
	room()
	if n := h.workers(); !slices.Equal(n, []int{5}) {
		t.Errorf("the hook was called for %v workers, want 5, once", n)
	}
	if s.Desired == nil || *s.Desired != 5 || !s.Applied || len(s.Decisions) == 0 || s.Decisions[len(s.Decisions)-1].Workers != 5 {
		t.Errorf("what is known is %+v", s)
	}
}
