package queue

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// A queue of which one job runs at a time in the fleet goes on as soon as that has ended, also where the worker's slot was free before.
func TestSerialQueueDoesNotWaitForAPoll(t *testing.T) {
	t.Parallel()
	q := fresh("serial")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q, Concurrency: 1})
	const n = 300
	jobs := make([]Job, n)
	for i := range jobs {
		jobs[i] = note{N: i}
	}
	if _, err := j.EnqueueMany(t.Context(), jobs); err != nil {
		t.Fatal(err)
	}
	w := newWorker(t, j, &WorkerOptions{Concurrency: 2, PollInterval: 200 * time.Millisecond})
	var ran, at, overlaps atomic.Int64
	Handle(w, func(context.Context, note) error {
		if at.Add(1) > 1 {
			overlaps.Add(1)
		}
		defer at.Add(-1)
		ran.Add(1)
		return nil
	})
	start(t, w)
	began := time.Now()
	eventually(t, 60*time.Second, "all have run", func() bool { return ran.Load() == n })
	took := time.Since(began)
	t.Logf("%v a job", took/n)
	if overlaps.Load() > 0 {
		t.Errorf("%d began while another ran", overlaps.Load())
	}
	if took > n*5*time.Millisecond { // the shortest pause between looks
		t.Errorf("%d jobs took %v: each waited for a look into the queue", n, took)
	}
}
