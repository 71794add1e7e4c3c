package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// standing returns the rules that Redis has.
func standing(t *testing.T, ctx context.Context, s *Store) []rule {
	t.Helper()
	r, err := s.readRules(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return r.list
}

// lose takes the store's own keys away, as eviction does, or FLUSHALL of their master.
func lose(t *testing.T, ctx context.Context, s *Store, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if err := s.rdb.Del(ctx, key).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// A rule that Redis has lost goes on to bar, is put back by who knows it, and its sweep is finished.
func TestLostRuleIsPutBack(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := running(t, newStore(t, rdb, nil))
		there := running(t, sibling(t, here))
		a, b := Of[lead](here, "lead"), Of[lead](there, "lead")
		for _, id := range []string{"1", "2"} {
			l, err := a.Load(ctx, id, loads(lead{Score: 1}))
			wantScore(t, l, err, 1)
		}
		e := barred(t, ctx, here, "lead:1")
		eventually(t, "the news is there", func() bool { _, err := b.Get(ctx, "1"); return errors.Is(err, ErrMiss) })
		for range 2 {
			lose(t, ctx, here, here.rulesKey())
			eventually(t, "it is put back", func() bool { list := standing(t, ctx, here); return len(list) == 1 && list[0] == rule{e, "lead:1"} })
			for _, v := range []*View[lead]{a, b} {
				if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
					t.Errorf("served again: %+v, %v", l, err)
				}
				l, err := v.Get(ctx, "2") // which no rule named
				wantScore(t, l, err, 1)
			}
		}
	})
}

// Somebody else makes a rule before those who know what was lost have heard of that.
func TestLostRuleIsPutBackBesideNewOnes(t *testing.T) {
	ctx := testContext(t)
	here := newStore(t, client(t, one.Get(t)), nil)
	v := Of[lead](here, "lead")
	if err := v.Set(ctx, "1", lead{Score: 1}); err != nil {
		t.Fatal(err)
	}
	barred(t, ctx, here, "lead:1")
	lose(t, ctx, here, here.rulesKey(), here.memoryKey())
	there := sibling(t, here)
	for _, pattern := range []string{"nothing:*", "nobody:*"} {
		barred(t, ctx, there, pattern)
	}
	if err := here.followRules(ctx); err != nil {
		t.Fatal(err)
	}
	if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("served again: %+v, %v", l, err)
	}
	patterns := map[string]bool{}
	for _, r := range standing(t, ctx, here) {
		patterns[r.pattern] = true
	}
	if !patterns["lead:1"] || !patterns["nothing:*"] {
		t.Errorf("there are %v", patterns)
	}
	// And both agree from then on.
	var was map[string]string
	for i := range 3 {
		for _, s := range []*Store{there, here} {
			if err := s.followRules(ctx); err != nil {
				t.Fatal(err)
			}
			is := here.rdb.HGetAll(ctx, here.rulesKey()).Val()
			if i > 0 && !maps.Equal(is, was) {
				t.Errorf("from %v to %v", was, is)
			}
			was = is
		}
	}
	if list := there.rules.Load().list; len(list) != 3 {
		t.Errorf("the other has %v", list)
	}
}

// Rules that nobody remembers who runs bar everything once, and not for ever.
func TestForgottenRulesBarAllOnce(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		dead := newStore(t, rdb, nil)
		v := Of[lead](dead, "lead")
		if err := v.Set(ctx, "1", lead{Score: 1}); err != nil {
			t.Fatal(err)
		}
		barred(t, ctx, dead, "lead:1")
		lose(t, ctx, dead, dead.rulesKey())
		for i := range 2 {
			s := sibling(t, dead) // has just started
			if err := s.Ready(ctx); err != nil {
				t.Fatal(err)
			}
			v := Of[lead](s, "lead")
			if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
				t.Errorf("served again: %+v, %v", l, err)
			}
			if list := standing(t, ctx, s); len(list) != 1 || list[0].pattern != "*" {
				t.Errorf("start %d: %v", i, list)
			}
			id := fmt.Sprint("new", i)
			if err := v.Set(ctx, id, lead{Score: 2}); err != nil {
				t.Fatal(err)
			}
			l, err := v.Get(ctx, id)
			wantScore(t, l, err, 2)
		}
	})
}

// So they do when somebody invalidates first of all.
func TestForgottenRulesBarAllWhenOthersAreMade(t *testing.T) {
	ctx := testContext(t)
	dead := newStore(t, client(t, one.Get(t)), nil)
	if err := Of[lead](dead, "lead").Set(ctx, "1", lead{Score: 1}); err != nil {
		t.Fatal(err)
	}
	barred(t, ctx, dead, "lead:1")
	lose(t, ctx, dead, dead.rulesKey())
	s := sibling(t, dead) // has just started
	barred(t, ctx, s, "nothing:*")
	if l, err := Of[lead](s, "lead").Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("served again: %+v, %v", l, err)
	}
}

// Floors that are put back add up with those that were made meanwhile.
func TestLostFloorsAddUpWithNewOnes(t *testing.T) {
	for name, forgotten := range map[string]bool{"known": false, "and more that nobody knows": true} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			here := newStore(t, client(t, one.Get(t)), nil)
			if _, err := here.bar(ctx, "lead:*", scaleaware.Tokens{at(10)}); err != nil {
				t.Fatal(err)
			}
			lose(t, ctx, here, here.rulesKey(), here.memoryKey())
			there := sibling(t, here)
			for range 3 {
				if _, err := there.bar(ctx, "lead:*", scaleaware.Tokens{at(5)}); err != nil {
					t.Fatal(err)
				}
				if !forgotten {
					break
				}
			}
			for _, s := range []*Store{here, there} {
				if err := s.followRules(ctx); err != nil {
					t.Fatal(err)
				}
				if floors := s.rules.Load().floors; len(floors) != 1 || floors[0].tokens.For(7) != at(10) {
					t.Errorf("%+v", floors)
				}
			}
		})
	}
}

// A master that was emptied, with the rules on it, makes nobody drop what other masters have.
func TestEmptiedRulesDropNothing(t *testing.T) {
	ctx := testContext(t)
	s := running(t, newStore(t, client(t, one.Get(t)), nil))
	v := Of[lead](s, "lead")
	if _, err := s.Invalidate(ctx, "nothing:*"); err != nil { // once, long ago
		t.Fatal(err)
	}
	l, err := v.Load(ctx, "1", loads(lead{Score: 1}))
	wantScore(t, l, err, 1)
	lose(t, ctx, s, s.rulesKey(), s.clockKey())
	eventually(t, "the rules are told from new ones", func() bool {
		since, err := s.rdb.HGet(ctx, s.rulesKey(), sinceField).Result()
		return err == nil && since == s.rules.Load().since
	})
	l, err = v.Get(ctx, "1")
	wantScore(t, l, err, 1)
	if list := standing(t, ctx, s); len(list) != 0 {
		t.Errorf("rules stand: %v", list)
	}
}

// The clock is lost on a server whose own was set back, and somebody invalidates who has just started. What was filled when
// the clock showed more is invalidated all the same.
func TestClockThatWasLostGoesOn(t *testing.T) {
	later := epoch(time.Now().Add(5 * time.Minute).UnixMicro()) // the server's clock was so far ahead
	for name, known := range map[string]func(t *testing.T, ctx context.Context, s *Store){
		"to processes that run": func(t *testing.T, ctx context.Context, s *Store) { running(t, s) },
		"to one that ran": func(t *testing.T, ctx context.Context, s *Store) {
			if err := s.followRules(ctx); err != nil {
				t.Fatal(err)
			}
			if err := s.noteAll(ctx); err != nil {
				t.Fatal(err)
			}
		},
		"to nobody but a rule": func(t *testing.T, ctx context.Context, s *Store) {
			barred(t, ctx, s, "nothing:*")
			lose(t, ctx, s, s.memoryKey())
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			s := newStore(t, client(t, one.Get(t)), nil)
			s.clock.learn(later)
			v := tagged(t, ctx, s)
			known(t, ctx, s)
			for range 3 { // the tag is from before
				if _, err := s.tick(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if name == "to nobody but a rule" {
				barred(t, ctx, s, "nothing:*")
				lose(t, ctx, s, s.memoryKey())
			}
			l, err := v.Load(ctx, "1", loads(lead{Score: 1}))
			wantScore(t, l, err, 1)
			l, err = v.Get(ctx, "1")
			wantScore(t, l, err, 1)
			lose(t, ctx, s, s.clockKey())
			if s.runs.Load() {
				eventually(t, "it is put back", func() bool {
					n, err := s.rdb.Get(ctx, s.clockKey()).Uint64()
					return err == nil && epoch(n) >= later
				})
			}
			stale := sibling(t, s) // knew the clock long ago, and reads it first
			stale.clock.learn(1)
			if _, err := stale.readClock(ctx); err != nil {
				t.Fatal(err)
			}
			other := sibling(t, s) // has just started
			if err := other.InvalidateTags(ctx, "all"); err != nil {
				t.Fatal(err)
			}
			for _, of := range []*Store{s, other} {
				eventually(t, "the news is there", func() bool {
					_, err := Of[lead](of, "lead", Tags(byCustomer)).Get(ctx, "1")
					return errors.Is(err, ErrMiss)
				})
			}
			l, err = v.Load(ctx, "1", loads(lead{Score: 2}))
			wantScore(t, l, err, 2)
			eventually(t, "what is filled now counts", func() bool {
				if _, err := v.Load(ctx, "1", loads(lead{Score: 2})); err != nil {
					t.Fatal(err)
				}
				l, err := v.Get(ctx, "1")
				return err == nil && l.Score == 2
			})
		})
	}
}

// A process that has just started finds the clock lost, and a tag: what was loaded before the tag was invalidated stays gone.
func TestNewProcessDoesNotTakeALostClockForNone(t *testing.T) {
	ctx := testContext(t)
	dead := newStore(t, client(t, one.Get(t)), nil)
	v := tagged(t, ctx, dead)
	l, err := v.Load(ctx, "1", loads(lead{Score: 1}))
	wantScore(t, l, err, 1)
	if err := dead.InvalidateTags(ctx, "all"); err != nil {
		t.Fatal(err)
	}
	if err := dead.followRules(ctx); err != nil {
		t.Fatal(err)
	}
	if err := dead.noteAll(ctx); err != nil { // on another master, mostly
		t.Fatal(err)
	}
	lose(t, ctx, dead, dead.clockKey(), dead.tagKey(hashTag("all")))
	s := sibling(t, dead)
	v = Of[lead](s, "lead", Tags(byCustomer))
	if _, err := v.Load(ctx, "2", loads(lead{Score: 2})); err != nil { // which introduces the tag
		t.Fatal(err)
	}
	if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("served again: %+v, %v", l, err)
	}
	if n, err := s.rdb.Get(ctx, s.clockKey()).Uint64(); err != nil || epoch(n) < epoch(dead.clock.known.Load()) {
		t.Errorf("the clock shows %d, and has shown %d: %v", n, dead.clock.known.Load(), err)
	}
}

// A clock that never was is made by who asks for it first, so that nobody asks again whether it was lost.
func TestClockBeginsWithWhoReadsIt(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	if _, err := s.readClock(ctx); err != nil {
		t.Fatal(err)
	}
	if n, err := s.rdb.Get(ctx, s.clockKey()).Uint64(); err != nil || n != 1 {
		t.Errorf("it shows %d, %v", n, err)
	}
}

// A tag's epoch is never left as it was, whatever the clock shows.
func TestTagIsRaisedPastAClockThatWasSetBack(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	v := tagged(t, ctx, s)
	later := epoch(time.Now().Add(5 * time.Minute).UnixMicro())
	if err := s.rdb.Set(ctx, s.tagKey(hashTag("all")), uint64(later), time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.InvalidateTags(ctx, "all"); err != nil {
		t.Fatal(err)
	}
	n, err := s.rdb.Get(ctx, s.tagKey(hashTag("all"))).Uint64()
	if err != nil || epoch(n) <= later {
		t.Errorf("from %d to %d, %v", later, n, err)
	}
	if l, err := v.Load(ctx, "1", loads(lead{Score: 1})); err != nil {
		t.Fatal(l, err)
	}
	l, err := v.Get(ctx, "1") // the clock shows no less than the tag
	wantScore(t, l, err, 1)
}
