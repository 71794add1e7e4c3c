package queue

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Run samples depths, relays the outbox and applies scale rules until ctx ends; then it returns nil. Workers have a
// Run of their own.
func (j *Jobs) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	tasks.Go(func() { j.runSampler(ctx) })
	if j.opts.Outbox != nil {
		tasks.Go(func() { j.runRelay(ctx) })
	}
	for _, s := range j.scalers {
		tasks.Go(func() { j.runScaler(ctx, s) })
	}
	tasks.Wait()
	return nil
}

func (j *Jobs) runSampler(ctx context.Context) {
	succeeded := j.meters.sampled.WithLabelValues("queue", "sample")
	succeeded.SetToCurrentTime() // until it has, its age is told from its start
	for more := true; more; more = sleep(ctx, j.opts.SampleInterval) {
		failed := false
		for _, q := range j.queues {
			if err := j.sample(ctx, q.Name); err != nil && ctx.Err() == nil {
				failed = true
				j.background("sample", err, "queue", q.Name)
			}
		}
		if !failed {
			succeeded.SetToCurrentTime()
		}
	}
}

// sample sets a queue's gauges. When the depth cannot be read they go: an old number would look like a calm queue.
func (j *Jobs) sample(ctx context.Context, queue string) error {
	ctx, cancel := context.WithTimeout(ctx, popTimeout)
	defer cancel()
	label := prometheus.Labels{"queue": queue}
	s, err := j.readDepth(ctx, queue)
	if err != nil {
		j.meters.tasks.DeletePartialMatch(label)
		j.meters.oldest.DeletePartialMatch(label)
		return err
	}
	for state, n := range map[string]int{
		"pending": s.Waiting, "active": s.Active, "scheduled": s.Delayed, "retry": s.Retrying,
		"archived": s.Failed, "completed": s.Completed, "parked": s.Parked,
	} {
		j.meters.tasks.WithLabelValues(queue, state).Set(float64(n))
	}
	if s.OldestSeconds != nil {
		j.meters.oldest.WithLabelValues(queue).Set(*s.OldestSeconds)
	} else {
		j.meters.oldest.DeletePartialMatch(label)
	}
	if n := j.wanted(ctx, queue); n >= 0 {
		j.meters.desired.WithLabelValues(queue).Set(float64(n))
	}
	return nil
}
