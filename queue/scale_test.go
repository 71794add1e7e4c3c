package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

var leadRule = ScaleRule{Queue: "lead-processing", Above: 1000, Up: 5, Below: 100, Down: 2}

func TestDecide(t *testing.T) {
	t.Parallel()
	known := func(n int) Depth { return Depth{Waiting: n, Known: true} }
	for _, c := range []struct {
		current int
		depth   Depth
		want    int
		reason  Reason
	}{
		{-1, known(1001), 5, ReasonAbove},
		{-1, known(1000), -1, ReasonBetween},
		{-1, known(100), -1, ReasonBetween},
		{-1, known(99), 2, ReasonBelow},
		{2, known(1001), 5, ReasonAbove},
		{5, known(1000), 5, ReasonBetween},
		{5, known(100), 5, ReasonBetween},
		{5, known(99), 2, ReasonBelow},
		{2, known(0), 2, ReasonBelow},
		{5, Depth{}, 5, ReasonUnknown},
		{-1, Depth{}, -1, ReasonUnknown},
		{5, Depth{Waiting: 5000}, 5, ReasonUnknown},
	} {
		d := leadRule.Decide(c.current, c.depth)
		if d.Workers != c.want || d.Reason != c.reason || d.Previous != c.current || d.Changed() != (c.want != c.current) {
			t.Errorf("Decide(%d, %+v) = %+v, want %d %s", c.current, c.depth, d, c.want, c.reason)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		leadRule.Decide(2, Depth{Waiting: 1500, Known: true})
	}
}

func TestScaleRuleMistakes(t *testing.T) {
	t.Parallel()
	j := newJobs(t, client(t, []string{"127.0.0.1:1"}), nil, Queue{Name: "q"})
	hook := func(context.Context, Decision) error { return nil }
	good := ScaleRule{Queue: "q", Above: 1, Up: 1}
	for _, bad := range []ScaleRule{{}, {Queue: "other", Above: 1, Up: 1}, {Queue: "q", Up: 1}, {Queue: "q", Above: 1}, {Queue: "q", Above: 1, Below: 2, Up: 1}, {Queue: "q", Above: 1, Up: 1, Down: 2}} {
		if j.Autoscale(bad, hook) == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	if j.Autoscale(good, nil) == nil {
		t.Error("a nil hook was accepted")
	}
	if err := j.Autoscale(good, hook); err != nil {
		t.Fatal(err)
	}
	if j.Autoscale(good, hook) == nil {
		t.Error("a second rule for one queue was accepted")
	}
}

// TestAutoscaleCallsHookOnce has three processes' worth of Jobs; one of them leads. The hook's first failure is
// tried again.
func TestAutoscaleCallsHookOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("scale")
		var mu sync.Mutex
		var calls []int
		failures := 1
		hook := func(_ context.Context, d Decision) error {
			mu.Lock()
			defer mu.Unlock()
			if failures > 0 {
				failures--
				return errors.New("not now")
			}
			calls = append(calls, d.Workers)
			return nil
		}
		workers := func() *int {
			j := newJobs(t, rdb, nil, Queue{Name: q})
			return status(t, j, q).DesiredWorkers
		}
		j := newJobs(t, rdb, nil, Queue{Name: q})
		fill(t, j, q, 11)
		for range 3 {
			j := newJobs(t, rdb, &Options{SampleInterval: 20 * time.Millisecond}, Queue{Name: q})
			if err := j.Autoscale(ScaleRule{Queue: q, Above: 10, Up: 5, Below: 3, Down: 2}, hook); err != nil {
				t.Fatal(err)
			}
			start(t, j)
		}
		eventually(t, 5*time.Second, "5 workers are wanted", func() bool { n := workers(); return n != nil && *n == 5 })
		if n, err := j.Purge(t.Context(), q, Waiting); n != 11 || err != nil {
			t.Fatalf("Purge = %d, %v", n, err)
		}
		eventually(t, 5*time.Second, "2 workers are wanted", func() bool { n := workers(); return n != nil && *n == 2 })
		mu.Lock()
		defer mu.Unlock()
		if len(calls) != 2 || calls[0] != 5 || calls[1] != 2 {
			t.Errorf("the hook was called with %v, want 5 and then 2", calls)
		}
	})
}

func ExampleScaleRule_Decide() {
	rule := ScaleRule{Queue: "lead-processing", Above: 1000, Up: 5, Below: 100, Down: 2}
	workers := 2
	for _, waiting := range []int{50, 400, 1001, 400, 99} {
		d := rule.Decide(workers, Depth{Waiting: waiting, Known: true})
		fmt.Println(waiting, "waiting:", d.Workers, "workers,", d.Reason)
		workers = d.Workers
	}
	d := rule.Decide(workers, Depth{})
	fmt.Println("depth not known:", d.Workers, "workers,", d.Reason)
	// Output:
	// 50 waiting: 2 workers, below
	// 400 waiting: 2 workers, between
	// 1001 waiting: 5 workers, above
	// 400 waiting: 5 workers, between
	// 99 waiting: 2 workers, below
	// depth not known: 2 workers, unknown
}
