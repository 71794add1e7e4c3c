package cache

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/robfig/cron/v3"
	"golang.org/x/sync/errgroup"
)

const (
	followEvery = time.Second
	// warmLockLife outlives the difference of the fleet's clocks; each tick has a lock of its own.
	warmLockLife = time.Hour
)

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

// keep warms at each time of the schedule, in UTC, so that all processes mean the same one.
func (s *Store) keep(ctx context.Context, schedule cron.Schedule) error {
	for {
		tick := schedule.Next(time.Now().UTC())
		if tick.IsZero() { // a date that never comes
			<-ctx.Done()
			return nil
		}
		if sleep(ctx, time.Until(tick)) != nil {
			return nil
		}
		if err := s.warmOnce(ctx, tick); err != nil && ctx.Err() == nil {
			s.in.failed(ctx, "warm", err)
		}
	}
}

// warmOnce warms if this process is the first of all to come for the tick. When it dies on the way, the next tick goes
// on where it was.
func (s *Store) warmOnce(ctx context.Context, tick time.Time) error {
	if s.rdb == nil {
		_, err := s.Warm(ctx)
		return err
	}
	lctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	lock := s.opts.Prefix + metaMark + "warm:" + strconv.FormatInt(tick.Unix(), 10)
	err := s.rdb.SetArgs(lctx, lock, "1", redis.SetArgs{Mode: "NX", TTL: warmLockLife}).Err()
	if err == redis.Nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cache: nobody may have warmed at %v: %w", tick, err)
	}
	_, err = s.Warm(ctx)
	return err
}
