package cache

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// An origin that takes the longer the more it is asked is asked less, and as much as before when it is quick again.
func TestAdaptLoadsFollowsTheOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLocal(t, &Options{MaxLoads: 64, AdaptLoads: true, LoadWait: 10 * time.Second, LoadTimeout: time.Minute})
		leads := Of[lead](s, "lead")
		var slow atomic.Bool
		var now, asked atomic.Int64
		origin := func(ctx context.Context, id string) (lead, error) {
			n := now.Add(1)
			defer now.Add(-1)
			took := 100 * time.Millisecond
			if slow.Load() { // it does eight at a time
				took *= time.Duration(1 + n/8)
			}
			return lead{ID: id}, sleep(ctx, took)
		}
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 96 {
			all.Go(func() {
				for ctx.Err() == nil {
					_, _ = leads.Load(ctx, fmt.Sprint(asked.Add(1)), origin)
				}
			})
		}
		limit := s.origin.adaptive.Limit
		time.Sleep(30 * time.Second)
		if n := limit(); n < 48 {
			t.Errorf("%d loads at a time while the origin is quick", n)
		}
		slow.Store(true)
		low := limit()
		for wait := 0; low > 32 && wait < 60; wait++ {
			time.Sleep(time.Second)
			low = limit()
		}
		if low > 32 {
			t.Errorf("%d loads at a time while it is slow", low)
		}
		slow.Store(false)
		for wait := 0; limit() < 48 && wait < 120; wait++ {
			time.Sleep(time.Second)
		}
		if n := limit(); n < 48 {
			t.Errorf("%d loads at a time when it is quick again", n)
		}
		t.Logf("%d while it is slow, %d after", low, limit())
		stop()
		all.Wait()
		time.Sleep(2 * time.Minute) // for the loads that nobody waits for any more
	})
}
