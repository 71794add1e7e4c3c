package queue

import (
	"context"
	"sync"
)

// Run samples depths when no other process does, relays the outbox, applies scale rules and enqueues periodic jobs until ctx ends; then it
// returns nil. Workers have a Run of their own.
func (j *Jobs) Run(ctx context.Context) error {
	sampler, err := j.newSampler()
	if err != nil {
		return err
	}
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = sampler.Run(ctx) }) // it returns nil
	if j.opts.Outbox != nil {
		tasks.Go(func() { j.runRelay(ctx) })
	}
	for _, s := range j.scalers {
		tasks.Go(func() { j.runScaler(ctx, s) })
	}
	for _, p := range j.crons {
		tasks.Go(func() { j.runPeriodic(ctx, p) })
	}
	tasks.Wait()
	return nil
}
