package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// tagged declares a view whose tags are known, so that the first fill of each counts.
func tagged(t *testing.T, ctx context.Context, s *Store, options ...ViewOption) *View[lead] {
	t.Helper()
	v := Of[lead](s, "lead", append(options, Tags(byCustomer))...)
	if _, err := s.introduce(ctx, []tagHash{hashTag("all"), hashTag("customer:1"), hashTag("customer:2")}); err != nil {
		t.Fatal(err)
	}
	return v
}

// invalidations are the ways to invalidate key 1 of a view.
var invalidations = map[string]func(ctx context.Context, v *View[lead]) error{
	"delete": func(ctx context.Context, v *View[lead]) error { return v.Delete(ctx, "1") },
	"pattern": func(ctx context.Context, v *View[lead]) error {
		_, err := v.store.Invalidate(ctx, "lead:*")
		return err
	},
	"tag": func(ctx context.Context, v *View[lead]) error { return v.store.InvalidateTags(ctx, "all") },
	"delete, then others": func(ctx context.Context, v *View[lead]) error {
		if err := v.Delete(ctx, "1"); err != nil {
			return err
		}
		_, err := v.store.Invalidate(context.Background(), "*")
		return err
	},
	"pattern, then others": func(ctx context.Context, v *View[lead]) error {
		if _, err := v.store.Invalidate(ctx, "lead:*"); err != nil {
			return err
		}
		_, err := v.store.Invalidate(context.Background(), "*")
		return errors.Join(err, v.store.InvalidateTags(context.Background(), "all"), v.Delete(context.Background(), "1"))
	},
}

// A load that a lagging replica answered is not stored after an invalidation by one who wrote, in any process, whichever
// way it was invalidated. What a replica answers that has caught up is.
func TestInvalidationsLeaveWhatLoadsMustHaveSeen(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, invalidate := range invalidations {
			for _, many := range []bool{false, true} {
				t.Run(fmt.Sprint(name, ", many ", many), func(t *testing.T) {
					ctx := testContext(t)
					here := running(t, newStore(t, rdb, nil))
					there := running(t, sibling(t, here))
					a, b := tagged(t, ctx, here), tagged(t, ctx, there)
					load := func(v *View[lead], load Loader[lead]) (lead, error) {
						if !many {
							return v.Load(ctx, "1", load)
						}
						found, err := v.LoadMany(ctx, []string{"1"}, ofEach(load))
						return found["1"], err
					}
					if err := invalidate(wrote(ctx, at(10)), a); err != nil {
						t.Fatal(err)
					}
					eventually(t, "the news is there", func() bool {
						rules := there.rules.Load()
						return rules.current(there, there.now()) && len(rules.floors) == len(here.rules.Load().floors)
					})
					eventually(t, "the tag's news is there", func() bool {
						e, err := rdb.Get(ctx, here.tagKey(hashTag("all"))).Uint64()
						known := there.tags.get(hashTag("all"))
						return err == nil && (known == nil || known.epoch >= epoch(e))
					})
					for process, v := range []*View[lead]{a, b} {
						l, err := load(v, loads(lead{Score: 1}, at(9)))
						wantScore(t, l, err, 1)
						if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
							t.Fatalf("process %d: a load as of 9 landed after an invalidation at 10: %+v, %v", process, l, err)
						}
					}
					l, err := load(b, loads(lead{Score: 2}, at(10)))
					wantScore(t, l, err, 2)
					for _, v := range []*View[lead]{a, b} {
						l, err = v.Get(ctx, "1")
						wantScore(t, l, err, 2)
					}
				})
			}
		}
	})
}

// What a process has stored that had not heard of the invalidation is not served.
func TestStoredUnheardIsNotServed(t *testing.T) {
	for name, invalidate := range invalidations {
		if name != "pattern" && name != "tag" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			here := newStore(t, client(t, one.Get(t)), nil)
			a := tagged(t, ctx, here)
			if err := invalidate(wrote(ctx, at(10)), a); err != nil {
				t.Fatal(err)
			}
			put := func(asOf ...scaleaware.Token) {
				t.Helper()
				h := header{kind: kindValue, codec: a.opts.codec.ID(), gen: 1, schema: a.schema, epoch: epoch(here.clock.known.Load()), tags: []tagHash{hashTag("all")}, asOf: asOf}
				raw := append(appendHeader(nil, h), `{"Score":3}`...)
				if err := here.rdb.Set(ctx, a.prefix+"1", raw, time.Minute).Err(); err != nil {
					t.Fatal(err)
				}
			}
			put(at(9))
			if l, err := a.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
				t.Errorf("as of 9, and served: %+v, %v", l, err)
			}
			if found, err := a.GetMany(ctx, []string{"1"}); err != nil || len(found) != 0 {
				t.Errorf("as of 9, and served: %+v, %v", found, err)
			}
			put(at(10))
			l, err := a.Get(ctx, "1")
			wantScore(t, l, err, 3)
			put(scaleaware.Token{System: 7, Timeline: 2, LSN: 3}) // after a promotion
			l, err = a.Get(ctx, "1")
			wantScore(t, l, err, 3)
			put() // as Set does
			l, err = a.Get(ctx, "1")
			wantScore(t, l, err, 3)
		})
	}
}

// A load that was overtaken while it ran is made once more, by a reader that is told what it must have seen; loaders that
// do not obey are not asked a third time.
func TestOvertakenLoadIsMadeOnceMore(t *testing.T) {
	for _, obeys := range []bool{true, false} {
		ctx := testContext(t)
		s := running(t, newStore(t, client(t, one.Get(t)), nil))
		v := tagged(t, ctx, s)
		if err := s.InvalidateTags(wrote(ctx, at(10)), "all"); err != nil {
			t.Fatal(err)
		}
		calls := 0
		l, err := v.Load(ctx, "1", func(ctx context.Context, id string) (lead, error) {
			if calls++; calls == 1 || !obeys {
				return loads(lead{Score: 1}, at(9))(ctx, id)
			}
			return obedient(lead{Score: 2})(ctx, id)
		})
		want := int64(1)
		if obeys {
			want = 2
		}
		wantScore(t, l, err, want)
		if calls != 2 {
			t.Errorf("obeys %v: %d loads", obeys, calls)
		}
		if l, err := v.Get(ctx, "1"); (err == nil) != obeys {
			t.Errorf("obeys %v: %+v, %v", obeys, l, err)
		}
		calls = 0
		away := errors.New("away")
		l, err = v.Load(ctx, "2", func(ctx context.Context, id string) (lead, error) {
			if calls++; calls == 1 {
				return loads(lead{Score: 1}, at(9))(ctx, id)
			}
			return lead{}, away
		})
		if !errors.Is(err, away) {
			t.Errorf("what was loaded first is older than the tag's invalidation: %+v, %v", l, err)
		}
	}
}

// A load whose tag is invalidated while it runs, and that is made again, brings what counts.
func TestLoadOvertakenWhileItRunsIsStored(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, run := range []bool{true, false} {
			for _, many := range []bool{false, true} {
				ctx := testContext(t)
				s := newStore(t, rdb, nil)
				there := sibling(t, s)
				if run {
					running(t, s)
				}
				v := tagged(t, ctx, s)
				calls := 0
				load := func(lctx context.Context, id string) (lead, error) {
					if calls++; calls > 1 {
						return obedient(lead{Score: 2})(lctx, id)
					}
					if err := there.InvalidateTags(wrote(ctx, at(10)), "all"); err != nil {
						return lead{}, err
					}
					return loads(lead{Score: 1}, at(9))(lctx, id)
				}
				var l lead
				var err error
				if many {
					var found map[string]lead
					found, err = v.LoadMany(ctx, []string{"1"}, ofEach(load))
					l = found["1"]
				} else {
					l, err = v.Load(ctx, "1", load)
				}
				wantScore(t, l, err, 2)
				l, err = v.Get(ctx, "1")
				wantScore(t, l, err, 2)
				if calls != 2 {
					t.Errorf("run %v, many %v: %d loads", run, many, calls)
				}
			}
		}
	})
}

// Who has read when a tag was invalidated knows that the clock shows as much.
func TestTagsTellTheClock(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	there := sibling(t, s)
	if err := there.InvalidateTags(ctx, "all"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.tagsOf(ctx, []tagHash{hashTag("all")}); err != nil {
		t.Fatal(err)
	}
	if shows := there.clock.known.Load(); shows == 0 || s.clock.known.Load() != shows {
		t.Errorf("the clock shows %d, %d is known", shows, s.clock.known.Load())
	}
}

// As with one key, and only those that were overtaken are loaded again.
func TestOvertakenLoadsOfManyAreMadeOnceMore(t *testing.T) {
	ctx := testContext(t)
	s := running(t, newStore(t, client(t, one.Get(t)), nil))
	tagged(t, ctx, s)
	v := Of[lead](s, "customer", Tags(func(id string, _ lead) []string { return []string{"customer:" + id} }))
	if err := s.InvalidateTags(wrote(ctx, at(10)), "customer:1"); err != nil {
		t.Fatal(err)
	}
	var asked [][]string
	found, err := v.LoadMany(ctx, []string{"1", "2"}, func(ctx context.Context, ids []string) (map[string]lead, error) {
		asked = append(asked, slices.Clone(ids))
		saw, found := at(9), map[string]lead{}
		if need, _ := scaleaware.WatermarkFrom(ctx).Written(ctx); !need.For(7).IsZero() {
			saw = need.For(7)
		}
		scaleaware.WatermarkFrom(ctx).Saw(saw)
		for _, id := range ids {
			found[id] = lead{ID: id, Score: int64(saw.LSN)}
		}
		return found, nil
	})
	if err != nil || found["1"].Score != 10 || found["2"].Score != 9 {
		t.Errorf("%+v, %v", found, err)
	}
	if want := [][]string{{"1", "2"}, {"1"}}; !slices.EqualFunc(asked, want, slices.Equal) {
		t.Errorf("asked for %v, want %v", asked, want)
	}
}

// What stands there still, though nobody is given it any more, says what a load must have seen.
func TestLoadThatIsOlderThanWhatWasInvalidatedIsMadeOnceMore(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := running(t, newStore(t, rdb, nil))
		v := tagged(t, ctx, s)
		l, err := v.Load(ctx, "1", loads(lead{Score: 8}, at(8)))
		wantScore(t, l, err, 8)
		if err := s.InvalidateTags(ctx, "all"); err != nil {
			t.Fatal(err)
		}
		l, err = v.Load(ctx, "1", func(ctx context.Context, id string) (lead, error) {
			if need, _ := scaleaware.WatermarkFrom(ctx).Written(ctx); !need.For(7).IsZero() {
				return loads(lead{Score: int64(need.For(7).LSN)}, need.For(7))(ctx, id)
			}
			return loads(lead{Score: 7}, at(7))(ctx, id)
		})
		wantScore(t, l, err, 8)
	})
}

// The floors that stay when their sweeps are done bar nothing else, however many there are, and end.
func TestFloorsAreBoundedAndEnd(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		v := Of[lead](s, "lead")
		for i := range maxFloors + 3 {
			if _, err := s.bar(ctx, fmt.Sprint("other:", i), scaleaware.Tokens{at(scaleaware.LSN(10 + i))}); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range s.rules.Load().list {
			if err := s.unbar(ctx, r.epoch); err != nil {
				t.Fatal(err)
			}
		}
		rules := s.rules.Load()
		if len(rules.list) != 0 || len(rules.floors) == 0 || len(rules.floors) > maxFloors+1 {
			t.Fatalf("%d rules and %d floors stand", len(rules.list), len(rules.floors))
		}
		for _, f := range rules.floors {
			if f.pattern == "*" && f.tokens.For(7).LSN < 10+maxFloors {
				t.Errorf("the floor of all is at %v", f.tokens)
			}
		}
		if l, err := v.Load(ctx, "1", loads(lead{Score: 1}, at(1000))); err != nil {
			t.Fatal(l, err)
		}
		l, err := v.Get(ctx, "1")
		wantScore(t, l, err, 1)
		ended := rules.floors[0]
		ended.until = 1
		text := append(make([]byte, 15), 1)
		text = appendTokens(text, ended.tokens)
		if err := rdb.HSet(ctx, s.rulesKey(), floorField+ended.pattern, text).Err(); err != nil {
			t.Fatal(err)
		}
		if err := s.followRules(ctx); err != nil {
			t.Fatal(err)
		}
		if err := s.reclaimMemory(ctx); err != nil {
			t.Fatal(err)
		}
		if n, err := rdb.HExists(ctx, s.rulesKey(), floorField+ended.pattern).Result(); n || err != nil {
			t.Errorf("a floor that has ended stands: %v", err)
		}
	})
}

// Of two floors of one pattern, or tag, the higher position stays, of each database.
func TestFloorsAddUp(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	other := scaleaware.Token{System: 9, Timeline: 1, LSN: 3}
	for _, by := range []context.Context{wrote(ctx, at(10)), wrote(ctx, at(1<<40)), wrote(ctx, at(8)), wrote(ctx, other), ctx, wrote(ctx, unknownAt(77))} {
		if _, err := s.bar(by, "lead:*", written(by)); err != nil {
			t.Fatal(err)
		}
		if err := s.InvalidateTags(by, "all"); err != nil {
			t.Fatal(err)
		}
	}
	states, err := s.tagsOf(ctx, []tagHash{hashTag("all")})
	if err != nil || states[0] == nil || states[0].floor == nil {
		t.Fatal(states, err)
	}
	floors := s.rules.Load().floors
	if len(floors) != 1 {
		t.Fatalf("%+v", floors)
	}
	for _, tokens := range []scaleaware.Tokens{floors[0].tokens, states[0].floor.tokens} {
		if len(tokens) != 2 || tokens.For(7) != at(1<<40) || tokens.For(9) != other {
			t.Errorf("%v", tokens)
		}
	}
}

// Versions that know of no floors take the rules for what they were, and the other way round.
func TestRulesOfOlderVersions(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	e, err := s.bar(ctx, "lead:*", scaleaware.Tokens{at(10)})
	if err != nil {
		t.Fatal(err)
	}
	fields, err := s.rdb.HGetAll(ctx, s.rulesKey()).Result()
	if err != nil || fields[fmt.Sprint(uint64(e))] != "lead:*" || fields[countField] != "1" {
		t.Errorf("%q, %v", fields, err)
	}
	if err := s.InvalidateTags(wrote(ctx, at(10)), "all"); err != nil {
		t.Fatal(err)
	}
	if n, err := s.rdb.Get(ctx, s.tagKey(hashTag("all"))).Uint64(); err != nil || epoch(n) <= e {
		t.Errorf("the tag is %d, %v", n, err)
	}
	old := sibling(t, newStore(t, s.rdb, nil))
	for _, command := range [][]any{{"hset", old.rulesKey(), "5", "lead:*"}, {"hincrby", old.rulesKey(), countField, "1"}} {
		if err := old.rdb.Do(ctx, command...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := old.followRules(ctx); err != nil || len(old.rules.Load().list) != 1 || !old.rules.Load().bars(4, "lead", "1") {
		t.Errorf("%+v, %v", old.rules.Load(), err)
	}
}

// A sweep spares the lease of a delete by one who wrote, and lets no load land there that began before it.
func TestSweepSparesFloorsAndFencesLoads(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		v := Of[lead](s, "lead")
		ids := fillStore(t, ctx, v, 30)
		if err := v.Delete(wrote(ctx, at(10)), "1", "2"); err != nil {
			t.Fatal(err)
		}
		if ttl := rdb.PTTL(ctx, v.prefix+"1").Val(); ttl < floorTTL-patience {
			t.Errorf("the lease lasts %v", ttl)
		}
		g := newGate()
		g.saw = scaleaware.Tokens{at(11)}
		slow := background(ctx, v, "1", g.load)
		<-g.entered
		report, err := sibling(t, s).Invalidate(ctx, "*") // which knows of no deletes
		if err != nil || report.Changed != 28 {
			t.Errorf("%+v, %v", report, err)
		}
		for _, id := range ids {
			raw, err := rdb.Get(ctx, v.prefix+id).Bytes()
			if id != "1" && id != "2" {
				if !errors.Is(err, redis.Nil) {
					t.Errorf("key %s is there: %v", id, err)
				}
				continue
			}
			if h, _, err := parseHeader(raw); err != nil || h.kind != kindLease || h.asOf.For(7) != at(10) || h.claim != 0 {
				t.Errorf("key %s: %+v, %v", id, h, err)
			}
		}
		g.release <- lead{Score: 1}
		<-slow
		if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("a load from before the sweep landed: %+v, %v", l, err)
		}
		l, err := v.Load(ctx, "1", loads(lead{Score: 2}, at(10)))
		wantScore(t, l, err, 2)
		l, err = v.Get(ctx, "1")
		wantScore(t, l, err, 2)
	})
}
