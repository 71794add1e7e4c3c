package cache

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestFleetHitRateAddsUpProcesses(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		mine := newStore(t, rdb, nil)
		look := func(s *Store, view, id string) { _, _ = Of[lead](s, view).Get(ctx, id) }
		other := sibling(t, mine)
		if err := Of[lead](other, "lead").Set(ctx, "known", lead{ID: "known"}); err != nil {
			t.Fatal(err)
		}
		look(mine, "lead", "missing")
		for range 3 {
			look(other, "lead", "known")
		}
		look(other, "event", "missing")
		for _, s := range []*Store{other, mine, mine} { // its own counts must not be added to themselves
			if err := s.share(ctx); err != nil {
				t.Fatal(err)
			}
		}
		got := mine.FleetHitRate(ctx)
		if got.Scope != "fleet" || got.Processes != 2 || got.Total.Lookups != 5 || got.Views["lead"].Lookups != 4 || got.Views["event"].Lookups != 1 {
			t.Fatalf("fleet: %+v", got)
		}
		if rate := got.Total.Rate; rate == nil || *rate != 3.0/5 {
			t.Fatalf("rate: %v", rate)
		}
		if alone := mine.HitRate(); alone.Scope != "process" || alone.Total.Lookups != 1 {
			t.Fatalf("process: %+v", alone)
		}
		// One that fell silent no longer counts, and neither does one that cannot be read.
		if err := rdb.HSet(ctx, mine.hitsKey(), other.id, "1 {}", "stranger", "99999999999999 [").Err(); err != nil {
			t.Fatal(err)
		}
		if got := mine.FleetHitRate(ctx); got.Processes != 1 || got.Total.Lookups != 1 {
			t.Fatalf("after one fell silent: %+v", got)
		}
		if err := mine.share(ctx); err != nil {
			t.Fatal(err)
		}
		if left, err := rdb.HExists(ctx, mine.hitsKey(), other.id).Result(); err != nil || left {
			t.Fatalf("the silent one was kept: %v, %v", left, err)
		}
	})
}

func TestFleetHitRateWithoutRedisSaysSo(t *testing.T) {
	s := newStore(t, client(t, one.Get(t)), nil)
	ctx, cancel := context.WithDeadline(testContext(t), time.Unix(0, 0))
	defer cancel()
	if got := s.FleetHitRate(ctx); got.Scope != "process" || got.Processes != 1 || got.Degraded == "" {
		t.Fatalf("without Redis: %+v", got)
	}
}

// A process on a full server is still counted.
func TestFleetHitRateOnAFullServer(t *testing.T) {
	ctx := testContext(t)
	mine := newStore(t, client(t, one.Get(t)), nil)
	other := sibling(t, mine)
	defer full(t, ctx)()
	for _, s := range []*Store{other, mine} {
		if err := s.share(ctx); err != nil {
			t.Error(err)
		}
	}
	if got := mine.FleetHitRate(ctx); got.Processes != 2 {
		t.Errorf("fleet: %+v", got)
	}
}
