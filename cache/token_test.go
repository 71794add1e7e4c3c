package cache

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// obedient reads as dbsplit does: from a replica that has seen what the watermark names.
func obedient(l lead) Loader[lead] {
	return func(ctx context.Context, id string) (lead, error) {
		w := scaleaware.WatermarkFrom(ctx)
		need, err := w.Written(ctx)
		if err != nil {
			return lead{}, err
		}
		for _, t := range need {
			w.Saw(t)
		}
		return lead{ID: id, Score: l.Score}, nil
	}
}

func TestOlderEntryIsAMissForTheCallerThatWrote(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		l, err := leads.Load(ctx, "1", loads(lead{Score: 1}, at(5)))
		wantScore(t, l, err, 1)
		writer := wrote(ctx, at(6))
		if _, err := leads.Get(writer, "1"); !errors.Is(err, ErrMiss) {
			t.Fatalf("the caller that wrote at 6 got the entry as of 5: %v", err)
		}
		l, err = leads.Get(ctx, "1") // everybody else still hits
		wantScore(t, l, err, 1)
		l, err = leads.Load(writer, "1", obedient(lead{Score: 2}))
		wantScore(t, l, err, 2)
		l, err = leads.Get(ctx, "1") // and now gets the newer one
		wantScore(t, l, err, 2)
	})
}

func TestEntryOfUnknownAge(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads, rates := Of[lead](s, "lead"), Of[lead](s, "rate", Untracked())
		for _, v := range []*View[lead]{leads, rates} {
			if err := v.Set(ctx, "1", lead{Score: 1}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := leads.Get(wrote(ctx, at(1)), "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("got %v", err)
		}
		l, err := rates.Get(wrote(ctx, at(1)), "1")
		wantScore(t, l, err, 1)
	})
}

func TestHitTellsItsAge(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		for range 2 { // a load, then a hit
			ctx, w := scaleaware.WithWatermark(ctx)
			if _, err := leads.Load(ctx, "1", loads(lead{}, at(5))); err != nil {
				t.Fatal(err)
			}
			if got := w.AsOf().String(); got != at(5).String() {
				t.Errorf("the caller's reads are as of %q", got)
			}
		}
	})
}

// A value made from an entry of unknown age has an unknown age, though its loader also read a database.
func TestAgeIsNotInventedInNestedLoads(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		inner, outer := Of[lead](s, "inner"), Of[lead](s, "outer")
		if err := inner.Set(ctx, "1", lead{Score: 1}); err != nil {
			t.Fatal(err)
		}
		l, err := outer.Load(ctx, "1", func(ctx context.Context, id string) (lead, error) {
			scaleaware.WatermarkFrom(ctx).Saw(at(9))
			return inner.Get(ctx, "1")
		})
		wantScore(t, l, err, 1)
		if _, err := outer.Get(wrote(ctx, at(5)), "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("got %v", err)
		}
	})
}

// A caller that wrote does not share a load that began without its position.
func TestWaiterThatWroteDoesNotShareAnOlderLoad(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads, g := Of[lead](newStore(t, rdb, nil), "lead"), newGate()
		g.saw = append(g.saw, at(5))
		slow := background(ctx, leads, "1", g.load)
		<-g.entered
		l, err := leads.Load(wrote(ctx, at(6)), "1", obedient(lead{Score: 2}))
		wantScore(t, l, err, 2)
		g.release <- lead{Score: 1}
		if got := <-slow; got.lead.Score != 1 {
			t.Errorf("%+v", got)
		}
		l, err = leads.Get(ctx, "1")
		wantScore(t, l, err, 2)
	})
}

type unknown struct{}

func (unknown) Position(context.Context) (scaleaware.Token, error) {
	return scaleaware.Token{}, errors.New("primary is away")
}

// When it is not known what the caller wrote, no entry and no other's load will do, and the loader is told.
func TestUnknownPositionIsAMiss(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		if _, err := leads.Load(ctx, "1", loads(lead{Score: 1}, at(5))); err != nil {
			t.Fatal(err)
		}
		ctx = blindly(ctx)
		if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("got %v", err)
		}
		told := false
		_, err := leads.Load(ctx, "1", func(ctx context.Context, id string) (lead, error) {
			_, err := scaleaware.WatermarkFrom(ctx).Written(ctx)
			told = err != nil
			return lead{}, nil
		})
		if err != nil || !told {
			t.Errorf("told %v, %v", told, err)
		}
	})
}

// blindly is the context of a caller of whom it is not known what it wrote.
func blindly(ctx context.Context) context.Context {
	ctx, w := scaleaware.WithWatermark(ctx)
	w.RaiseFrom(unknown{})
	return ctx
}

// What is loaded when it is not known what the caller wrote takes the place of the values that stand there: begun at once, loaded
// together, and stored.
func TestUnknownPositionReplacesWhatIsCached(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, func(o *Options) { o.MaxLoads, o.LoadWait = 1, -1 })
		leads, ids := Of[lead](s, "lead"), []string{"1", "2", "3", "4", "5"}
		var sent pipelines
		load := func(ctx context.Context, score int64) (calls int) {
			t.Helper()
			found, err := leads.LoadMany(ctx, ids, func(_ context.Context, ids []string) (map[string]lead, error) {
				calls++ // never beside another, with MaxLoads
				found := map[string]lead{}
				for _, id := range ids {
					found[id] = lead{ID: id, Score: score}
				}
				return found, nil
			})
			if err != nil || len(found) != len(ids) || found["5"].Score != score {
				t.Fatal(found, err)
			}
			return calls
		}
		load(ctx, 1)
		rdb.AddHook(&sent)
		if n := load(blindly(ctx), 2); n != 1 {
			t.Errorf("%d loads", n)
		}
		if alone, together := sent.alone.Load(), sent.together.Load(); alone != 0 || together != 2 {
			t.Errorf("%d commands, %d pipelines: one begins, one stores", alone, together)
		}
		for _, id := range ids {
			l, err := leads.Get(ctx, id)
			wantScore(t, l, err, 2)
		}
		l, err := leads.Load(blindly(ctx), "1", loads(lead{Score: 3}))
		wantScore(t, l, err, 3)
		l, err = leads.Get(ctx, "1")
		wantScore(t, l, err, 3)
		fills := func(outcome string) float64 { return testutil.ToFloat64(s.in.fills.WithLabelValues("lead", outcome)) }
		if stored, unleased := fills("stored"), fills("unleased"); stored != 11 || unleased != 0 {
			t.Errorf("%v stored, %v unleased", stored, unleased)
		}
	})
}

// Such a load asks for no claim and leaves that of others, does not make a value last, and does not replace one that is newer, or
// that it cannot be compared with.
func TestUnknownPositionLoadsBesideARefresh(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads := Of[lead](s, "lead", StaleWhileRevalidate(time.Minute))
		key := leads.prefix + "1"
		if err := leads.Delete(wrote(ctx, at(5)), "1"); err != nil {
			t.Fatal(err)
		}
		l, err := leads.Load(ctx, "1", loads(lead{Score: 5}, at(5)))
		wantScore(t, l, err, 5)
		staled(t, ctx, leads, "1", time.Second)
		claim := func() int64 { t.Helper(); return headerAt(t, ctx, rdb, key).claim }
		g := newGate()
		g.saw = scaleaware.Tokens{at(7)}
		l, err = leads.Load(ctx, "1", g.load)
		wantScore(t, l, err, 5)
		<-g.entered
		claimed, ends := claim(), rdb.PExpireTime(ctx, key).Val()
		if claimed == 0 {
			t.Fatal("the refresh has no claim")
		}
		for _, saw := range []scaleaware.Tokens{{at(4)}, nil} {
			l, err = leads.Load(blindly(ctx), "1", func(ctx context.Context, id string) (lead, error) {
				if now := claim(); now < claimed { // it may have been kept meanwhile
					t.Errorf("the claim was until %d, beside this load it is until %d", claimed, now)
				}
				return loads(lead{Score: 4}, saw...)(ctx, id)
			})
			wantScore(t, l, err, 4)
			l, err = leads.Get(ctx, "1")
			wantScore(t, l, err, 5)
		}
		if now := claim(); now < claimed {
			t.Errorf("the claim was until %d, after two loads it is until %d", claimed, now)
		}
		if now := rdb.PExpireTime(ctx, key).Val(); now != ends {
			t.Errorf("the value was to end at %v, now at %v", ends, now)
		}
		l, err = leads.Load(blindly(ctx), "1", loads(lead{Score: 9}, at(9)))
		wantScore(t, l, err, 9)
		g.release <- lead{Score: 7}
		eventually(t, "the refresh ends", func() bool { _, runs := leads.refreshing.Load(key); return !runs })
		l, err = leads.Get(ctx, "1")
		wantScore(t, l, err, 9)
		if n := testutil.ToFloat64(s.in.fills.WithLabelValues("lead", "older")); n != 3 {
			t.Errorf("%v loads were older than what stood there, want both, and the refresh", n)
		}
	})
}

// hesitant takes so long to say that it does not know.
type hesitant time.Duration

func (h hesitant) Position(ctx context.Context) (scaleaware.Token, error) {
	_ = sleep(ctx, time.Duration(h))
	return unknown{}.Position(ctx)
}

// A delete whose caller's position takes longer to be asked for than Redis may has all of that for Redis.
func TestDeleteAfterASlowPosition(t *testing.T) {
	ctx := testContext(t)
	const budget = time.Second
	leads := Of[lead](newStore(t, client(t, one.Get(t)), func(o *Options) { o.RedisTimeout = budget }), "lead")
	if _, err := leads.Load(ctx, "1", loads(lead{Score: 1})); err != nil {
		t.Fatal(err)
	}
	wctx, w := scaleaware.WithWatermark(ctx)
	w.RaiseFrom(hesitant(budget + 50*time.Millisecond))
	if err := leads.Delete(wctx, "1"); err != nil {
		t.Error(err)
	}
	if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("after the delete: %v", err)
	}
}

// What a loader has seen for such a caller its later readers are told, too.
func TestUnknownPositionTellsWhatWasSeen(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		load := func(ctx context.Context, id string) (lead, error) {
			w := scaleaware.WatermarkFrom(ctx)
			w.Saw(at(9))
			w.Raise(at(9)) // as monotonic reads do
			return lead{ID: id, Score: 1}, nil
		}
		if _, err := leads.Load(ctx, "replaced", loads(lead{Score: 0}, at(5))); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"new", "replaced"} {
			if _, err := leads.Load(blindly(ctx), id, load); err != nil {
				t.Fatal(err)
			}
			caller, w := scaleaware.WithWatermark(ctx)
			l, err := leads.Get(caller, id)
			wantScore(t, l, err, 1)
			if written, err := w.Written(ctx); err != nil || written.For(at(9).System) != at(9) {
				t.Errorf("%s: later reads must reach %v, %v, want %v", id, written, err, at(9))
			}
		}
		_, err := leads.Load(blindly(ctx), "unknown", func(ctx context.Context, id string) (lead, error) {
			scaleaware.WatermarkFrom(ctx).Raise(unknownAt(1))
			return lead{ID: id, Score: 1}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leads.Get(ctx, "unknown"); !errors.Is(err, ErrMiss) {
			t.Errorf("what was seen at an unknown position is stored: %v", err)
		}
	})
}
