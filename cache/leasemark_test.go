package cache

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A sweep spares what deletes by callers who wrote ask for, though the mark of them was lost.
func TestLostLeaseMarkIsLeftAgain(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, runs := range []bool{false, true} {
			ctx := testContext(t)
			s := newStore(t, rdb, nil)
			if runs {
				running(t, s)
			}
			v := Of[lead](s, "lead")
			lose := func() {
				t.Helper()
				if n, err := rdb.Del(ctx, s.leaseMarkKey()).Result(); err != nil || n != 1 {
					t.Fatalf("%d marks, %v", n, err)
				}
			}
			if err := v.Delete(wrote(ctx, at(10)), "1"); err != nil {
				t.Fatal(err)
			}
			lose()
			if runs { // nobody deletes
				eventually(t, "the mark is back", func() bool { return rdb.Exists(ctx, s.leaseMarkKey()).Val() == 1 })
			} else if err := v.Delete(wrote(ctx, at(10)), "2"); err != nil {
				t.Fatal(err)
			}
			if _, err := sibling(t, s).Invalidate(ctx, "*"); err != nil {
				t.Fatal(err)
			}
			l, err := v.Load(ctx, "1", loads(lead{Score: 9}, at(9)))
			wantScore(t, l, err, 9)
			if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
				t.Errorf("runs %v: a load as of 9 landed: %+v, %v", runs, l, err)
			}
		}
	})
}

// The mark is left on a server that is full, too, and not again while it lasts, which all processes would be told of.
func TestLeaseMarkIsLeftWhenItIsNeeded(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	left := func() time.Duration {
		s.markLeases(ctx)
		ttl, err := s.rdb.PTTL(ctx, s.leaseMarkKey()).Result()
		if err != nil {
			t.Fatal(err)
		}
		return ttl
	}
	lift := full(t, ctx)
	if ttl := left(); ttl < leaseMarkLife-patience {
		t.Errorf("on a full server the mark lasts %v", ttl)
	}
	lift()
	for ttl, again := range map[time.Duration]bool{leaseMarkLife * 3 / 4: false, leaseMarkLife / 4: true} {
		if err := s.rdb.PExpire(ctx, s.leaseMarkKey(), ttl).Err(); err != nil {
			t.Fatal(err)
		}
		if now := left(); (now > ttl) != again {
			t.Errorf("a mark that lasts %v lasts %v", ttl, now)
		}
	}
}

// Where servers do not tell what they lose, the mark is looked for every few seconds.
func TestLeaseMarkIsLookedForWhereServersDoNotTell(t *testing.T) {
	for name, told := range map[string]bool{"told": true, "untold": false} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			rdb := client(t, one.Get(t))
			if !told {
				rdb = untracked(t, false)
			}
			s := running(t, newStore(t, rdb, func(o *Options) { o.RedisTimeout = 2 * time.Second }))
			key := s.leaseMarkKey()
			stands := func(after time.Duration) bool {
				slot := s.coverage.slot(key)
				left := *s.leaseMarks.left.Load()
				left.at = s.now() - after
				return left.stands(s, slot, s.now())
			}
			eventually(t, "the mark is left under a cover", func() bool { s.markLeases(ctx); return stands(0) })
			if !stands(leaseMarkUntold - time.Second) {
				t.Error("it is looked for again and again")
			}
			if stands(leaseMarkUntold+time.Second) != told || stands(leaseMarkEvery+time.Second) {
				t.Error("it may be lost unheard for too long, or is looked for too often")
			}
		})
	}
}
