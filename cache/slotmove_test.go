package cache

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
)

// moveSlotOf begins to move the slot of a key, of which all keys are still where they were, till the test ends.
func moveSlotOf(t *testing.T, ctx context.Context, key string) {
	t.Helper()
	cluster := six.Get(t)
	slot, from, to := route(t, ctx, cluster, key)
	m, err := cluster.BeginMigration(ctx, slot, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		var err error
		for moved := 1; moved > 0 && err == nil; {
			moved, err = m.Move(ctx, 100)
		}
		if err := errors.Join(err, m.Finish(ctx), cluster.MigrateSlot(ctx, slot, from)); err != nil {
			t.Error(err)
		}
	})
}

// wantOlderShutOut checks that no load as of 7 is stored.
func wantOlderShutOut(t *testing.T, ctx context.Context, v *View[lead], ids ...string) {
	t.Helper()
	for _, id := range ids {
		l, err := v.Load(ctx, id, loads(lead{Score: 7}, at(7)))
		wantScore(t, l, err, 7)
		if l, err := v.Get(ctx, id); !errors.Is(err, ErrMiss) {
			t.Errorf("%s: got %+v, %v, which is shut out", id, l, err)
		}
	}
}

// While a slot moves its old master sends who asks for a key that is not there to the new one, which scripts cannot follow. What
// deletes by callers who wrote ask of later loads stays all the same when a sweep comes by.
func TestSweepWhileASlotMovesSparesFloors(t *testing.T) {
	for name, c := range map[string]struct {
		floors, values, ageless int
	}{
		"a floor alone":                  {1, 0, 0},
		"floors alone":                   {3, 0, 0},
		"a floor among values":           {1, 2, 0},
		"a floor among values of no age": {1, 0, 2},
		"young values alone":             {0, 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			s := newStore(t, client(t, six.Get(t)), nil)
			leads := Of[lead](s, "lead")
			ids := inSlot("swept", c.floors+c.values+c.ageless)
			shut, values, ageless := ids[:c.floors+c.values], ids[c.floors:c.floors+c.values], ids[c.floors+c.values:]
			if err := leads.Delete(wrote(ctx, at(8)), shut...); err != nil {
				t.Fatal(err)
			}
			for _, id := range ageless {
				if err := leads.Set(ctx, id, lead{}); err != nil {
					t.Fatal(err)
				}
			}
			for _, id := range values { // as of when a floor stood
				l, err := leads.Load(ctx, id, loads(lead{Score: 9}, at(9)))
				wantScore(t, l, err, 9)
			}
			moveSlotOf(t, ctx, leads.prefix+ids[0])
			report, err := s.Invalidate(ctx, "lead:{moving}*")
			if err != nil || !report.Complete || report.Changed != int64(c.values+c.ageless) {
				t.Errorf("%+v, %v", report, err)
			}
			wantOlderShutOut(t, ctx, leads, shut...)
		})
	}
}

func TestDeleteWhileASlotMoves(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, six.Get(t)), nil)
	leads := Of[lead](s, "lead")
	ids := inSlot("deleted", 4)
	for _, id := range ids {
		if err := leads.Set(ctx, id, lead{Score: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := leads.Delete(wrote(ctx, at(8)), ids[1], ids[2]); err != nil {
		t.Fatal(err)
	}
	moveSlotOf(t, ctx, leads.prefix+ids[0])
	for what, err := range map[string]error{
		"of a value, by who wrote":         leads.Delete(wrote(ctx, at(8)), ids[0]),
		"of a lease, by who wrote nothing": leads.Delete(ctx, ids[1]),
		"of a lease, by who wrote":         leads.Delete(wrote(ctx, at(7)), ids[2]),
		"of a value, by who wrote nothing": leads.Delete(ctx, ids[3]),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if l, err := leads.Get(ctx, ids[3]); !errors.Is(err, ErrMiss) {
		t.Errorf("it is there still: %+v, %v", l, err)
	}
	wantOlderShutOut(t, ctx, leads, ids[:3]...)
}

// What cannot be used is overwritten, and what it asks of later loads stays.
func TestUnusableValueIsOverwrittenWhileASlotMoves(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, six.Get(t))
	s := newStore(t, rdb, nil)
	was, is := Of[string](sibling(t, s), "lead"), Of[lead](s, "lead")
	ids := inSlot("unusable", 4)
	schema, others := ids[:2], ids[2:]
	if err := is.Delete(wrote(ctx, at(8)), schema...); err != nil {
		t.Fatal(err)
	}
	for _, id := range schema {
		_, err := was.Load(ctx, id, func(ctx context.Context, _ string) (string, error) {
			scaleaware.WatermarkFrom(ctx).Saw(at(8))
			return "", nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(rdb.Set(ctx, is.prefix+others[0], "garbage", 0).Err(), rdb.RPush(ctx, is.prefix+others[1], "a list").Err()); err != nil {
		t.Fatal(err)
	}
	moveSlotOf(t, ctx, is.prefix+ids[0])
	if _, err := is.LoadMany(ctx, schema[:1], ofEach(loads(lead{Score: 7}, at(7)))); err != nil {
		t.Fatal(err)
	}
	wantOlderShutOut(t, ctx, is, schema...)
	for _, id := range others {
		l, err := is.Load(ctx, id, loads(lead{Score: 7}, at(7)))
		wantScore(t, l, err, 7)
		l, err = is.Get(ctx, id)
		wantScore(t, l, err, 7)
		if ttl := rdb.PTTL(ctx, is.prefix+id).Val(); ttl <= 0 {
			t.Errorf("%s stays for %v", id, ttl)
		}
	}
}

// Nor is the mark lost that makes sweeps look for floors.
func TestMarkIsKeptWhileItsSlotMoves(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, six.Get(t))
	s := newStore(t, rdb, nil)
	if err := rdb.Set(ctx, s.leaseMarkKey(), "1", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	moveSlotOf(t, ctx, s.leaseMarkKey())
	if err := Of[lead](s, "lead").Delete(wrote(ctx, at(8)), "1"); err != nil {
		t.Fatal(err)
	}
	if ttl := rdb.PTTL(ctx, s.leaseMarkKey()).Val(); ttl < leaseMarkLife-time.Minute {
		t.Errorf("the mark stays for %v", ttl)
	}
}
