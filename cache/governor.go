package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"golang.org/x/sync/semaphore"
)

// governor lets the origin have so many loads at a time, and no more.
type governor struct {
	wait     time.Duration
	slots    *semaphore.Weighted
	adaptive adaptivelimiter.AdaptiveLimiter[any] // nil if the number does not change
}

func newGovernor(o Options) *governor {
	g := &governor{wait: o.LoadWait, slots: semaphore.NewWeighted(int64(o.MaxLoads))}
	if o.AdaptLoads {
		most := uint(o.MaxLoads)
		g.adaptive = adaptivelimiter.NewBuilder[any]().
			WithLimits(max(1, most/8), most, most).
			WithMaxWaitTime(max(o.LoadWait, 0)).
			Build()
	}
	return g
}

// turn waits until the origin may have one more load. done gives the turn back and says whether the time that the load took
// tells of the origin. A load that nobody waits for does not wait either.
func (s *Store) turn(ctx context.Context, behind bool) (done func(telling bool), err error) {
	g := s.origin
	wait := g.wait
	if behind {
		wait = -1
	}
	if !g.slots.TryAcquire(1) {
		if wait < 0 {
			return nil, ErrShed
		}
		wctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if g.slots.Acquire(wctx, 1) != nil {
			return nil, fmt.Errorf("%w (waited %v)", ErrShed, wait.Round(time.Millisecond))
		}
	}
	if g.adaptive == nil {
		return func(bool) { g.slots.Release(1) }, nil
	}
	wctx, cancel := context.WithTimeout(ctx, max(wait, 0))
	defer cancel()
	permit, ok := g.adaptive.TryAcquirePermit()
	if !ok && wait >= 0 {
		permit, err = g.adaptive.AcquirePermit(wctx)
		ok = err == nil
	}
	if !ok {
		g.slots.Release(1)
		return nil, fmt.Errorf("%w (of the lowered limit)", ErrShed)
	}
	return func(telling bool) {
		if telling {
			permit.Record()
		} else {
			permit.Drop()
		}
		g.slots.Release(1)
	}, nil
}
