package cache

import (
	"context"
	"errors"
	"testing"
	"time"

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
		ctx, w := scaleaware.WithWatermark(ctx)
		w.RaiseFrom(unknown{})
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
