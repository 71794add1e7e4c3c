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

func unknownAt(nonce scaleaware.LSN) scaleaware.Token { return scaleaware.Token{System: 7, LSN: nonce} }

// settling reads as dbsplit does: it asks the primary, which stands at t, about what is unknown.
func settling(l lead, t scaleaware.Token) Loader[lead] {
	return func(ctx context.Context, id string) (lead, error) {
		w := scaleaware.WatermarkFrom(ctx)
		need, err := w.Written(ctx)
		if err != nil {
			return lead{}, err
		}
		if u := need.For(t.System); u.Unknown() {
			w.Settle(u, t)
		}
		w.Saw(t)
		return lead{ID: id, Score: l.Score}, nil
	}
}

// A caller with an unknown position misses until a load of its own has learned it; others are not touched.
func TestUnknownTokenMissesUntilALoadHasSettledIt(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		l, err := leads.Load(ctx, "1", loads(lead{Score: 1}, at(5)))
		wantScore(t, l, err, 1)
		writer := wrote(ctx, unknownAt(77))
		if _, err := leads.Get(writer, "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("Get: %v", err)
		}
		if found, err := leads.GetMany(writer, []string{"1"}); err != nil || len(found) != 0 {
			t.Errorf("GetMany: %v, %v", found, err)
		}
		l, err = leads.Load(writer, "1", settling(lead{Score: 2}, at(9)))
		wantScore(t, l, err, 2)
		if ts, err := scaleaware.WatermarkFrom(writer).Written(ctx); err != nil || ts.For(7) != at(9) {
			t.Errorf("the caller's watermark: %v, %v", ts, err)
		}
		for _, ctx := range []context.Context{writer, ctx} {
			l, err = leads.Get(ctx, "1")
			wantScore(t, l, err, 2)
		}
	})
}

// Who joins a load that settles another's position has written nothing by that.
func TestSettledPositionIsNotAWriteOfThoseWhoJoin(t *testing.T) {
	ctx := testContext(t)
	leads, g := Of[lead](newStore(t, client(t, one.Get(t)), nil), "lead"), newGate()
	slow := background(wrote(ctx, unknownAt(77)), leads, "1", func(ctx context.Context, id string) (lead, error) {
		if _, err := g.load(ctx, id); err != nil {
			return lead{}, err
		}
		return settling(lead{Score: 2}, at(9))(ctx, id)
	})
	<-g.entered
	joiner, w := scaleaware.WithWatermark(ctx)
	joined := background(joiner, leads, "1", loads(lead{Score: 2}, at(9)))
	eventually(t, "both to have looked", func() bool { return testutil.ToFloat64(leads.looked[resultMiss]) == 2 })
	g.release <- lead{} // landing takes the load a round trip more, joining takes none
	for _, c := range []<-chan outcome{slow, joined} {
		got := <-c
		wantScore(t, got.lead, got.err, 2)
	}
	if ts, err := w.Written(ctx); err != nil || len(ts) != 0 {
		t.Errorf("the one who joined has written %v, %v", ts, err)
	}
}

// After a delete by one whose position is unknown nothing is stored, until the lease of that delete would have ended,
// however many loads and other deletes keep it. Loads return values, and only the writer's own must go to the primary.
func TestDeleteAtAnUnknownPositionEnds(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		key := leads.prefix + "1"
		if err := leads.Delete(wrote(ctx, unknownAt(77)), "1"); err != nil {
			t.Fatal(err)
		}
		ttl := rdb.PTTL(ctx, key).Val()
		if ttl <= 0 || ttl > leads.store.leaseTTL() {
			t.Fatalf("the lease lasts %v", ttl)
		}
		l, err := leads.Load(ctx, "1", func(ctx context.Context, id string) (lead, error) {
			w := scaleaware.WatermarkFrom(ctx)
			w.Saw(at(20))
			if ts, err := w.Written(ctx); err != nil || len(ts) != 0 {
				t.Errorf("a load by somebody else must have %v, %v", ts, err)
			}
			return lead{Score: 3}, nil
		})
		wantScore(t, l, err, 3)
		if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Fatalf("it was stored: %v", err)
		}
		if err := leads.Delete(wrote(ctx, at(10)), "1"); err != nil { // known, and of another writer
			t.Fatal(err)
		}
		lease := func() header {
			t.Helper()
			raw, err := rdb.Get(ctx, key).Bytes()
			if err != nil {
				t.Fatal(err)
			}
			h, _, err := parseHeader(raw)
			if err != nil || h.kind != kindLease {
				t.Fatalf("%+v, %v", h, err)
			}
			return h
		}
		h := lease()
		if len(h.asOf) != 2 || h.asOf[0] != at(10) || h.asOf[1] != unknownAt(77) {
			t.Fatalf("the lease holds %v", h.asOf)
		}
		if left := time.Until(time.UnixMilli(h.hard)); left > ttl+time.Second {
			t.Errorf("a later delete keeps what was unknown for %v", left)
		}
		l, err = leads.Load(ctx, "1", obedient(lead{Score: 4}))
		wantScore(t, l, err, 4)
		if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Fatalf("it was stored: %v", err)
		}
		endUnknown(t, ctx, rdb, key)
		l, err = leads.Load(ctx, "1", loads(lead{Score: 1}, at(9)))
		wantScore(t, l, err, 1)
		if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Fatalf("a load as of 9 landed after a delete at 10: %v", err)
		}
		l, err = leads.Load(ctx, "1", obedient(lead{Score: 5}))
		wantScore(t, l, err, 5)
		l, err = leads.Get(ctx, "1")
		wantScore(t, l, err, 5)

		if err := leads.Delete(wrote(ctx, unknownAt(78)), "1"); err != nil {
			t.Fatal(err)
		}
		endUnknown(t, ctx, rdb, key)
		if err := leads.Delete(wrote(ctx, at(12)), "1"); err != nil {
			t.Fatal(err)
		}
		if h := lease(); len(h.asOf) != 1 || h.asOf[0] != at(12) {
			t.Errorf("what has ended is kept: %v", h.asOf)
		}
	})
}

// endUnknown moves the time when a lease's unknown positions end into the past.
func endUnknown(t *testing.T, ctx context.Context, rdb redis.UniversalClient, key string) {
	t.Helper()
	past := string([]byte{0, 0, 0, 0, 0, 0, 0, 1})
	if err := rdb.SetRange(ctx, key, 32, past).Err(); err != nil {
		t.Fatal(err)
	}
}

// A load that cannot have seen what its tag asks for, though it goes to the primary, whose position is known as of its last look, is
// made once more, and not again.
func TestUnknownPositionIsOvertakenOnce(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	v := tagged(t, ctx, s)
	if err := s.InvalidateTags(wrote(ctx, at(10)), "all"); err != nil {
		t.Fatal(err)
	}
	calls := 0
	l, err := v.Load(wrote(ctx, unknownAt(0x1f)), "1", func(ctx context.Context, id string) (lead, error) {
		calls++
		return settling(lead{Score: 2}, at(9))(ctx, id)
	})
	wantScore(t, l, err, 2)
	if calls != 2 {
		t.Errorf("%d loads", calls)
	}
}
