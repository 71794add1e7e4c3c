package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// shift moves one of the times in an entry's header, in its own unit.
func shift(t *testing.T, ctx context.Context, rdb redis.UniversalClient, key string, offset int64, by int64) {
	t.Helper()
	raw, err := rdb.GetRange(ctx, key, offset, offset+7).Bytes()
	if err != nil || len(raw) != 8 {
		t.Fatal(raw, err)
	}
	moved := binary.BigEndian.AppendUint64(nil, uint64(int64(binary.BigEndian.Uint64(raw))+by))
	if err := rdb.SetRange(ctx, key, offset, string(moved)).Err(); err != nil {
		t.Fatal(err)
	}
}

const (
	startAt = 16
	softAt  = 24
)

// A load of unknown age takes the place of a value of known age when no lagging replica may have answered it any more.
func TestLoadOfUnknownAgeReplacesOldValues(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		v := tagged(t, ctx, s)
		l, err := v.Load(ctx, "1", loads(lead{Score: 1}, at(9)))
		wantScore(t, l, err, 1)
		if err := s.InvalidateTags(ctx, "all"); err != nil {
			t.Fatal(err)
		}
		shift(t, ctx, rdb, v.prefix+"1", startAt, -(floorTTL - 10*time.Second).Microseconds())
		l, err = v.Load(ctx, "1", loads(lead{Score: 2}))
		wantScore(t, l, err, 2)
		if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("got %+v, %v, which is of unknown age, and what was there is young", l, err)
		}
		shift(t, ctx, rdb, v.prefix+"1", startAt, -(10 * time.Second).Microseconds())
		l, err = v.Load(ctx, "1", loads(lead{Score: 3}))
		wantScore(t, l, err, 3)
		l, err = v.Get(ctx, "1")
		wantScore(t, l, err, 3)
	})
}

// As when a stale value is loaded anew behind its callers' backs.
func TestRefreshOfUnknownAgeReplacesOldValues(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	v := Of[lead](s, "lead", StaleWhileRevalidate(time.Hour))
	l, err := v.Load(ctx, "1", loads(lead{Score: 1}, at(9)))
	wantScore(t, l, err, 1)
	shift(t, ctx, s.rdb, v.prefix+"1", startAt, -floorTTL.Microseconds())
	shift(t, ctx, s.rdb, v.prefix+"1", softAt, -time.Hour.Milliseconds())
	eventually(t, "what is loaded anew is served", func() bool {
		l, err := v.Load(ctx, "1", loads(lead{Score: 2}))
		return err == nil && l.Score == 2
	})
}

// What loads of an Untracked view have read does not count: a Delete leaves nothing of it, nor asks loads for it.
func TestUntrackedViewsAskForNoAge(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		rates := Of[lead](s, "rate", Untracked())
		if _, err := s.Invalidate(wrote(ctx, at(10)), "*"); err != nil {
			t.Fatal(err)
		}
		loaded := func(many bool, score int64, saw ...scaleaware.Token) {
			t.Helper()
			load := func(ctx context.Context, id string) (lead, error) {
				if need, err := scaleaware.WatermarkFrom(ctx).Written(ctx); err != nil || len(need) > 0 {
					t.Errorf("a load was told that it must have seen %v, %v", need, err)
				}
				return loads(lead{Score: score}, saw...)(ctx, id)
			}
			var err error
			if many {
				_, err = rates.LoadMany(ctx, []string{"1"}, ofEach(load))
			} else {
				_, err = rates.Load(ctx, "1", load)
			}
			if err != nil {
				t.Fatal(err)
			}
			l, err := rates.Get(ctx, "1")
			wantScore(t, l, err, score)
		}
		for _, many := range []bool{false, true} {
			loaded(many, 9, at(9))
			if err := rates.Delete(ctx, "1"); err != nil {
				t.Fatal(err)
			}
			if n, err := rdb.Exists(ctx, rates.prefix+"1").Result(); n != 0 || err != nil {
				t.Errorf("many %v: a lease stands, %v", many, err)
			}
			loaded(many, 8)
			if err := rates.Delete(wrote(ctx, at(12)), "1"); err != nil {
				t.Fatal(err)
			}
			// As an older version of the program leaves it.
			lease := s.deletion(rates.prefix+"1", newLease(scaleaware.Tokens{at(5)}))
			if err := deleteScript.Run(ctx, rdb, []string{lease.key}, lease.args...).Err(); err != nil {
				t.Fatal(err)
			}
			shift(t, ctx, rdb, lease.key, softAt, -s.leaseTTL().Milliseconds())
			loaded(many, 7)
			if err := rates.Delete(ctx, "1"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A value whose load began by a clock that was ahead, before a failover, shuts loads of unknown age out no longer than others.
func TestDeleteOfAValueFromAClockAhead(t *testing.T) {
	for name, take := range map[string]func(ctx context.Context, v *View[lead]) error{
		"delete": func(ctx context.Context, v *View[lead]) error { return v.Delete(ctx, "1") },
		"sweep": func(ctx context.Context, v *View[lead]) error {
			v.store.markLeases(ctx)
			_, err := v.store.Invalidate(ctx, "*")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			s := newStore(t, client(t, one.Get(t)), nil)
			v := Of[lead](s, "lead")
			l, err := v.Load(ctx, "1", loads(lead{Score: 1}, at(9)))
			wantScore(t, l, err, 1)
			shift(t, ctx, s.rdb, v.prefix+"1", startAt, (10 * time.Minute).Microseconds())
			if err := take(ctx, v); err != nil {
				t.Fatal(err)
			}
			raw, err := s.rdb.Get(ctx, v.prefix+"1").Bytes()
			h, _, parse := parseHeader(raw)
			if err != nil || parse != nil || h.kind != kindLease || h.asOf.For(7) != at(9) {
				t.Fatalf("%+v, %v, %v", h, err, parse)
			}
			if left := time.Until(time.UnixMilli(h.soft)); left > s.leaseTTL()+time.Second {
				t.Errorf("loads of unknown age are shut out for %v", left)
			}
		})
	}
}
