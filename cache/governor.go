package cache

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"golang.org/x/sync/semaphore"
)

const (
	// adaptWindow is how often the number of loads is thought over, each time by one or two, where adaptSamples have ended.
	adaptWindow  = 250 * time.Millisecond
	adaptSamples = 20
	// adaptMemory is of how many windows the usual time of a load is an average: an origin that stays slow becomes usual.
	adaptMemory = 240
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
			WithRecentWindow(adaptWindow, 20*adaptWindow, adaptSamples).
			WithBaselineWindow(adaptMemory).
			WithMaxWaitTime(max(o.LoadWait, 0)).
			Build()
	}
	return g
}

// turn waits until the origin may have one more load. done gives the turn back and says whether the time that the load took
// tells of the origin. A load that nobody waits for does not wait either. With a lent turn it does not wait any longer, and has
// none of its own.
func (s *Store) turn(ctx context.Context, behind bool, lent ...*lentTurn) (done func(telling bool), err error) {
	leave := func() {}
	done, err = s.ownTurn(ctx, behind, func(wake func()) {
		leave()
		leave = s.queued.enter(lent, wake)
	})
	leave()
	if err != nil && slices.ContainsFunc(lent, (*lentTurn).has) {
		return func(bool) {}, nil
	}
	return done, err
}

// ownTurn is turn without what others lend; waits is told how to end the wait.
func (s *Store) ownTurn(ctx context.Context, behind bool, waits func(wake func())) (done func(telling bool), err error) {
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
		waits(cancel)
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
		waits(cancel)
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
