package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// A retry comes no sooner than after its delay, and not much later, although asynq stores the second only: after an error, after
// a panic, and when the job's time was up.
func TestRetriesAreNeverEarly(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("again")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	const n = 60
	var mu sync.Mutex
	due := map[string]time.Time{}
	asked, late := 0, []time.Duration{}
	w := newWorker(t, j, &WorkerOptions{Concurrency: 2 * n, RetryDelay: func(_ int, err error) time.Duration {
		d := time.Duration(rand.IntN(1500)) * time.Millisecond
		mu.Lock()
		defer mu.Unlock()
		asked++
		if !errors.Is(err, context.DeadlineExceeded) { // whose text does not say whose it is
			text := err.Error()
			if p, ok := errors.AsType[*PanicError](err); ok {
				text = fmt.Sprint(p.Value)
			}
			due[text] = time.Now().Add(d)
			return d
		}
		return 700 * time.Millisecond
	}})
	timedOut := make([]time.Time, n+5)
	Handle(w, func(ctx context.Context, job note) error {
		now := time.Now()
		if AttemptFrom(ctx).Number == 1 {
			text := fmt.Sprint(job.N)
			switch {
			case job.N >= n:
				<-ctx.Done()
				mu.Lock()
				timedOut[job.N] = time.Now()
				mu.Unlock()
				return ctx.Err()
			case job.N%3 == 0:
				panic(text)
			}
			return errors.New(text)
		}
		mu.Lock()
		defer mu.Unlock()
		at := due[fmt.Sprint(job.N)]
		if job.N >= n {
			at = timedOut[job.N].Add(700 * time.Millisecond)
		}
		late = append(late, now.Sub(at))
		return nil
	})
	start(t, w)
	for i := range n {
		if _, err := j.Enqueue(t.Context(), note{N: i}); err != nil {
			t.Fatal(err)
		}
	}
	for i := n; i < n+5; i++ {
		if _, err := j.Enqueue(t.Context(), note{N: i}, Timeout(time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, "all are tried again", func() bool { mu.Lock(); defer mu.Unlock(); return len(late) == n+5 })
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(late)
	p95 := late[len(late)*95/100]
	t.Logf("late by %v to %v, 95%% by %v at most", late[0], late[len(late)-1], p95)
	if late[0] < -5*time.Millisecond { // the handler and RetryDelay do not look at the clock at the same time
		t.Errorf("a retry came %v early", -late[0])
	}
	if p95 > 600*time.Millisecond {
		t.Errorf("95%% of retries are late by %v at most, want 600ms", p95)
	}
	if asked != n+5 {
		t.Errorf("RetryDelay was asked %d times for %d failures", asked, n+5)
	}
}
