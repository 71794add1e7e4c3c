package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
	"golang.org/x/sync/errgroup"
)

const followEvery = time.Second

// Run is told by Redis what changes, so that values may be kept in the process; it follows invalidations and TTL extensions
// of other processes, ends what could not be ended before, shares the hit counts, samples the servers' memory and evictions
// when no other process does, and keeps the warming schedule, until ctx ends; then it returns nil. Without it the cache
// works, and does none of these.
func (s *Store) Run(ctx context.Context) error {
	s.runs.Store(true)
	defer s.runs.Store(false)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.every(ctx, followEvery, "settle", s.settle) })
	if s.opts.WarmBeforeReady > 0 {
		group.Go(func() error { s.warmFirst(ctx); return nil })
	}
	if s.opts.WarmSchedule != "" {
		schedule, err := cron.ParseStandard(s.opts.WarmSchedule)
		if err != nil { // which New has refused
			return fmt.Errorf("cache: Options.WarmSchedule: %w", err)
		}
		group.Go(func() error { return s.keep(ctx, schedule) })
	}
	if s.rdb == nil {
		return group.Wait()
	}
	group.Go(func() error { s.warnOnce(ctx); return nil })
	group.Go(func() error { return s.runCoherence(ctx) })
	group.Go(func() error { return s.every(ctx, followEvery, "rules", s.followRules) })
	group.Go(func() error { return s.every(ctx, followEvery, "clock", s.followClock) })
	group.Go(func() error { return s.every(ctx, followEvery, "floor", s.keepLeaseMark) })
	group.Go(func() error { return s.every(ctx, debtEvery, "recover", s.payDebts) })
	group.Go(func() error { return s.every(ctx, reclaimEvery, "reclaim", s.reclaimMemory) })
	group.Go(func() error { return s.every(ctx, followEvery, "follow", s.follow) })
	group.Go(func() error { return s.every(ctx, shareEvery, "share", s.share) })
	group.Go(func() error { return s.runSampler(ctx) })
	return group.Wait()
}

// every runs a task at once and then periodically. Its failures are counted and logged.
func (s *Store) every(ctx context.Context, period time.Duration, name string, task func(context.Context) error) error {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		if err := task(ctx); err != nil && ctx.Err() == nil {
			s.in.failed(ctx, name, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
