package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// A fill that began before an invalidation never lands, whoever invalidates and however.
func TestFillBeforeInvalidationNeverLands(t *testing.T) {
	for name, invalidate := range map[string]func(ctx context.Context, here, there *Store) error{
		"delete here":  func(ctx context.Context, here, _ *Store) error { return Of[lead](here, "lead").Delete(ctx, "1") },
		"delete there": func(ctx context.Context, _, there *Store) error { return Of[lead](there, "lead").Delete(ctx, "1") },
		"delete by one who wrote": func(ctx context.Context, _, there *Store) error {
			return Of[lead](there, "lead").Delete(wrote(ctx, at(10)), "1")
		},
		"pattern here":  func(ctx context.Context, here, _ *Store) error { _, err := here.Invalidate(ctx, "lead:*"); return err },
		"pattern there": func(ctx context.Context, _, there *Store) error { _, err := there.Invalidate(ctx, "*"); return err },
		"eviction of the lease": func(ctx context.Context, here, _ *Store) error {
			return here.rdb.Del(ctx, here.opts.Prefix+"lead:1").Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, rdb redis.UniversalClient) {
				ctx := testContext(t)
				here := newStore(t, rdb, nil)
				there := sibling(t, here)
				leads, g := Of[lead](here, "lead"), newGate()
				slow := background(ctx, leads, "1", g.load)
				<-g.entered
				if err := invalidate(ctx, here, there); err != nil {
					t.Fatal(err)
				}
				g.release <- lead{Score: 1} // the old value, read before the invalidation
				if got := <-slow; got.err != nil || got.lead.Score != 1 {
					t.Fatalf("the caller from before: %+v", got)
				}
				if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
					t.Fatalf("the old value landed: %v", err)
				}
				l, err := Of[lead](there, "lead").Load(ctx, "1", loads(lead{Score: 2}, at(10)))
				wantScore(t, l, err, 2)
			})
		})
	}
}

// The lease of one process must not serve a fill of the same process from before a delete: its identity is used once.
func TestLeaseIsNotReusedAroundDelete(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		before, after := newGate(), newGate()
		old := background(ctx, leads, "1", before.load)
		<-before.entered
		if err := leads.Delete(ctx, "1"); err != nil {
			t.Fatal(err)
		}
		fresh := background(ctx, leads, "1", after.load)
		<-after.entered // not shared with the one from before, and its lease stands
		before.release <- lead{Score: 1}
		if got := <-old; got.lead.Score != 1 {
			t.Fatalf("%+v", got)
		}
		if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Fatalf("the fill from before the delete landed under the new lease: %v", err)
		}
		after.release <- lead{Score: 2}
		if got := <-fresh; got.lead.Score != 2 {
			t.Fatalf("%+v", got)
		}
		l, err := leads.Get(ctx, "1")
		wantScore(t, l, err, 2)
	})
}

func TestSetIsNotOverwrittenByRunningLoad(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads, g := Of[lead](newStore(t, rdb, nil), "lead"), newGate()
		slow := background(ctx, leads, "1", g.load)
		<-g.entered
		if err := leads.Set(ctx, "1", lead{Score: 9}); err != nil {
			t.Fatal(err)
		}
		g.release <- lead{Score: 1}
		<-slow
		l, err := leads.Get(ctx, "1")
		wantScore(t, l, err, 9)
	})
}

// unclaim lets another process load, as if the one that does had stood still for too long.
func unclaim(t *testing.T, rdb redis.UniversalClient, key string) {
	t.Helper()
	if err := rdb.SetRange(testContext(t), key, 48, string(make([]byte, 8))).Err(); err != nil {
		t.Fatal(err)
	}
}

// Two processes load under one lease; the one that read the older state ends last.
func TestOlderFillDoesNotReplaceNewer(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := newStore(t, rdb, nil)
		a, b := Of[lead](here, "lead"), Of[lead](sibling(t, here), "lead")
		g := newGate()
		g.saw = append(g.saw, at(5))
		slow := background(ctx, a, "1", g.load)
		<-g.entered
		unclaim(t, rdb, a.prefix+"1")
		l, err := b.Load(ctx, "1", loads(lead{Score: 2}, at(6)))
		wantScore(t, l, err, 2)
		g.release <- lead{Score: 1}
		<-slow
		l, err = a.Get(ctx, "1")
		wantScore(t, l, err, 2)
	})
}

// After a failover to a server whose clock is behind, leases are there that were left later than it is now. Loads land on them.
func TestLoadLandsOnALeaseFromAheadOfTheClock(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, many := range []bool{false, true} {
			ctx := testContext(t)
			leads := Of[lead](newStore(t, rdb, nil), "lead")
			key := leads.prefix + "1"
			if err := leads.Delete(wrote(ctx, at(5)), "1"); err != nil {
				t.Fatal(err)
			}
			ahead := binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(10*time.Minute).UnixMicro()))
			if err := rdb.SetRange(ctx, key, 16, string(ahead)).Err(); err != nil {
				t.Fatal(err)
			}
			var err error
			if many {
				_, err = leads.LoadMany(ctx, []string{"1"}, ofEach(loads(lead{Score: 2}, at(6))))
			} else {
				_, err = leads.Load(ctx, "1", loads(lead{Score: 2}, at(6)))
			}
			if err != nil {
				t.Fatal(err)
			}
			l, err := leads.Get(ctx, "1")
			wantScore(t, l, err, 2)
		}
	})
}

// What a load must have seen is a timeline and a whole position: on a later timeline any is enough, on an earlier one none.
func TestLoadsAreComparedByTimelineAndPosition(t *testing.T) {
	token := func(timeline uint32, lsn scaleaware.LSN) scaleaware.Token {
		return scaleaware.Token{System: 7, Timeline: timeline, LSN: lsn}
	}
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, many := range []bool{false, true} {
			ctx := testContext(t)
			s := newStore(t, rdb, nil)
			leads := Of[lead](s, "lead")
			for i, c := range []struct {
				wrote, saw scaleaware.Token
				lands      bool
			}{
				{token(1, 2<<32), token(1, 1<<32|9), false},
				{token(1, 1<<32|9), token(1, 2<<32), true},
				{token(1, 1<<32|9), token(1, 1<<32|8), false},
				{token(1, 1<<32|9), token(1, 1<<32|9), true},
				{token(1, 1<<31), token(1, 1<<32-1), true},
				{token(1, 1<<40), token(2, 1), true},
				{token(2, 1), token(1, 1<<40), false},
				{token(2, 1), token(10, 0), true},
				{token(10, 0), token(2, 1), false},
			} {
				id := fmt.Sprint(i)
				err := leads.Delete(wrote(ctx, c.wrote), id)
				if err != nil {
					t.Fatal(err)
				}
				if load := loads(lead{Score: 1}, c.saw); many {
					_, err = leads.LoadMany(ctx, []string{id}, ofEach(load))
				} else {
					_, err = leads.Load(ctx, id, load)
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, err := leads.Get(ctx, id); (err == nil) != c.lands {
					t.Errorf("many %v: a load as of %v after a delete at %v: %v", many, c.saw, c.wrote, err)
				}
			}
		}
	})
}

// Without positions the later start counts as newer.
func TestEarlierFillOfUnknownAgeDoesNotReplaceLater(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := newStore(t, rdb, nil)
		a, b := Of[lead](here, "lead"), Of[lead](sibling(t, here), "lead")
		g := newGate()
		slow := background(ctx, a, "1", g.load)
		<-g.entered
		unclaim(t, rdb, a.prefix+"1")
		l, err := b.Load(ctx, "1", loads(lead{Score: 2}))
		wantScore(t, l, err, 2)
		g.release <- lead{Score: 1}
		<-slow
		l, err = a.Get(ctx, "1")
		wantScore(t, l, err, 2)
	})
}

// After a delete by one who wrote, a load that a lagging replica answered is refused, and loads are told what to wait for.
func TestDeleteLeavesWhatLoadsMustHaveSeen(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		if err := leads.Delete(wrote(ctx, at(10)), "1"); err != nil {
			t.Fatal(err)
		}
		l, err := leads.Load(ctx, "1", loads(lead{Score: 1}, at(9)))
		wantScore(t, l, err, 1)
		if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Fatalf("a load as of 9 landed after a delete at 10: %v", err)
		}
		l, err = leads.Load(ctx, "1", obedient(lead{Score: 2}))
		wantScore(t, l, err, 2)
		l, err = leads.Get(wrote(ctx, at(10)), "1")
		wantScore(t, l, err, 2)
	})
}

// A delete by one who knows less does not take back what an earlier one said.
func TestDeletesAddUp(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		other := scaleaware.Token{System: 9, Timeline: 1, LSN: 3}
		for _, by := range []context.Context{wrote(ctx, at(10)), wrote(ctx, at(1<<40)), wrote(ctx, at(8)), wrote(ctx, other), ctx} {
			if err := leads.Delete(by, "1"); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := rdb.Get(ctx, leads.prefix+"1").Bytes()
		if err != nil {
			t.Fatal(err)
		}
		h, payload, err := parseHeader(raw)
		if err != nil || h.kind != kindLease || len(payload) != 0 || len(h.asOf) != 2 || h.asOf.For(7) != at(1<<40) || h.asOf.For(9) != other {
			t.Errorf("%+v, %v", h, err)
		}
	})
}

// Another fill lands after this caller's look-up and before its lease: the origin is not asked again.
func TestValueThatLandedMeanwhileIsUsed(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads, g := Of[lead](newStore(t, rdb, nil), "lead"), newGate()
		_, missed := leads.fetch(ctx, leads.prefix+"1", "1", nil)
		if err := leads.Set(ctx, "1", lead{Score: 5}); err != nil {
			t.Fatal(err)
		}
		l, err := leads.share(ctx, &fill{key: leads.prefix + "1", id: "1", seen: missed}, g.load)
		wantScore(t, l, err, 5)
		if n := g.calls.Load(); n != 0 {
			t.Errorf("%d loads", n)
		}
	})
}

// Where the writer wrote to another database than the one that the view is read from, its position says nothing of a load.
func TestDeleteByAWriterOfAnotherDatabase(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		if err := leads.Delete(wrote(ctx, at(6)), "1"); err != nil {
			t.Fatal(err)
		}
		l, err := leads.Load(ctx, "1", loads(lead{Score: 2}, scaleaware.Token{System: 8, Timeline: 1, LSN: 3}))
		wantScore(t, l, err, 2)
		l, err = leads.Get(ctx, "1")
		wantScore(t, l, err, 2)
	})
}

// A load of unknown age cannot show that it has seen what the writer wrote. It is refused for as long as a load that read
// from before it may last, and not for as long as somebody asks; one that shows that it has not is refused all the same.
func TestDeleteBeforeLoadsOfUnknownAgeEnds(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		key := leads.prefix + "1"
		refused := func(what string, load Loader[lead]) {
			t.Helper()
			if _, err := leads.Load(ctx, "1", load); err != nil {
				t.Fatal(err)
			}
			if l, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
				t.Fatalf("%s landed: %+v, %v", what, l, err)
			}
		}
		if err := leads.Delete(wrote(ctx, at(6)), "1"); err != nil {
			t.Fatal(err)
		}
		refused("a load of unknown age", loads(lead{Score: 1}))
		raw, err := rdb.Get(ctx, key).Bytes()
		if err != nil {
			t.Fatal(err)
		}
		h, _, err := parseHeader(raw)
		if err != nil {
			t.Fatal(err)
		}
		if left := h.soft - time.Now().UnixMilli(); left <= 0 || left > leads.store.leaseTTL().Milliseconds() {
			t.Errorf("known positions end in %d ms, the lease's TTL is %v", left, leads.store.leaseTTL())
		}
		endKnown := func(till byte) {
			t.Helper()
			if err := rdb.SetRange(ctx, key, 24, string([]byte{0, 0, 0, 0, 0, 0, 0, till})).Err(); err != nil {
				t.Fatal(err)
			}
		}
		endKnown(0) // an older version's lease does not say when
		refused("a load of unknown age", loads(lead{Score: 1}))
		endKnown(1)
		if err := leads.Delete(wrote(ctx, at(7)), "1"); err != nil {
			t.Fatal(err)
		}
		refused("a load of unknown age, after another delete", loads(lead{Score: 1}))
		endKnown(1)
		if err := leads.Delete(ctx, "1"); err != nil {
			t.Fatal(err)
		}
		refused("a load as of 5", loads(lead{Score: 1}, at(5)))
		l, err := leads.Load(ctx, "1", loads(lead{Score: 2}))
		wantScore(t, l, err, 2)
		l, err = leads.Get(ctx, "1")
		wantScore(t, l, err, 2)
	})
}

// A value that was loaded with others, from more databases than its own, does not keep those out that are loaded alone.
func TestLoadOfFewerDatabasesLands(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := running(t, newStore(t, rdb, nil))
		v := tagged(t, ctx, s)
		l, err := v.Load(ctx, "1", loads(lead{Score: 1}, at(5), scaleaware.Token{System: 8, Timeline: 1, LSN: 5}))
		wantScore(t, l, err, 1)
		if err := s.InvalidateTags(ctx, "all"); err != nil {
			t.Fatal(err)
		}
		l, err = v.Load(ctx, "1", loads(lead{Score: 2}, at(6)))
		wantScore(t, l, err, 2)
		l, err = v.Get(ctx, "1")
		wantScore(t, l, err, 2)
	})
}
