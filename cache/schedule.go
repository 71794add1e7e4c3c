package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/robfig/cron/v3"

	"github.com/scaleaware/scaleaware/redisclient"
)

const (
	// warmMarkLife outlives the difference of the fleet's clocks; each tick has a mark of its own.
	warmMarkLife = time.Hour
	// warmLease is how long the others wait for a process that has died while it warmed.
	warmLease = 15 * time.Second
	// warmLook is how often they look.
	warmLook = time.Second
)

// errWarmLost ends a warming that another process goes on with.
var errWarmLost = errors.New("cache: another process has taken the warming over")

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

// warmOnce sees to it that one of all processes warms for the tick. It returns when that is done, or when it has been tried
// for warmMarkLife: if the one who warms dies, another goes on where it was.
func (s *Store) warmOnce(ctx context.Context, tick time.Time) error {
	if s.rdb == nil {
		_, err := s.Warm(ctx)
		return err
	}
	name := s.opts.Prefix + metaMark + "warm:" + strconv.FormatInt(tick.Unix(), 10)
	lease, mark := redisclient.NewLease(s.rdb, name+":lease", warmLease), name+":done"
	for end := s.now() + warmMarkLife; ; {
		mine, done, err := s.warmTurn(ctx, lease, mark)
		switch {
		case err != nil && s.now() >= end:
			return fmt.Errorf("cache: nobody may have warmed at %v: %w", tick, err)
		case err != nil:
			s.in.failed(ctx, "warm", err)
		case done:
			return nil
		case mine:
			err := s.warmUnder(ctx, lease, mark)
			if !errors.Is(err, errWarmLost) {
				return err
			}
		case s.now() >= end:
			return nil
		}
		if err := sleep(ctx, warmLook); err != nil {
			return err
		}
	}
}

// warmTurn asks whether the tick is done, and if not, whether it is this process's to do.
func (s *Store) warmTurn(ctx context.Context, lease *redisclient.Lease, mark string) (mine, done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	marked := func() (bool, error) {
		err := s.rdb.Get(ctx, mark).Err()
		if errors.Is(err, redis.Nil) {
			return false, nil
		}
		return err == nil, err
	}
	if done, err = marked(); done || err != nil {
		return false, done, err
	}
	// A server that is full refuses this, and would refuse what is warmed, and the mark.
	if err := s.rdb.SetNX(ctx, lease.Key(), lease.Holder(), warmLease).Err(); err != nil {
		return false, false, err
	}
	if mine, err = lease.Hold(ctx); !mine || err != nil {
		return false, false, err
	}
	if done, err = marked(); done || err != nil { // the mark comes before the lease's end
		_ = lease.Release(ctx)
		return false, done, err
	}
	return true, false, nil
}

// warmUnder warms while it holds the lease, and marks the tick as done, also when some keys failed: the next tick has them.
func (s *Store) warmUnder(ctx context.Context, lease *redisclient.Lease, mark string) error {
	wctx, stop := context.WithCancelCause(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		for sleep(wctx, warmLease/3) == nil {
			hctx, cancel := context.WithTimeout(wctx, s.stepTimeout())
			mine, err := lease.Hold(hctx)
			cancel()
			if err == nil && !mine {
				stop(errWarmLost)
			}
		}
	}()
	_, err := s.Warm(wctx)
	lost := context.Cause(wctx)
	stop(nil)
	<-kept
	tctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.stepTimeout())
	defer cancel()
	if errors.Is(lost, errWarmLost) {
		return lost
	}
	if ctx.Err() == nil {
		err = errors.Join(err, s.rdb.Set(tctx, mark, "1", warmMarkLife).Err())
	}
	return errors.Join(err, lease.Release(tctx))
}
