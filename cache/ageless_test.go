package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
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
