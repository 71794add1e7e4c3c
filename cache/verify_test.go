package cache

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// A comparison that waits for an invalidation does not keep loads from the origin.
func TestVerifyHoldsNoTurnWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := newLocal(t, &Options{Verify: 1, MaxLoads: 1, LoadWait: -1})
		leads := Of[lead](s, "lead", InProcess(Local{}))
		l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
		wantScore(t, l, err, 1)
		l, err = leads.Load(ctx, "1", loads(lead{Score: 2}))
		wantScore(t, l, err, 1)
		synctest.Wait() // the comparison has found the difference
		l, err = leads.Load(ctx, "2", loads(lead{Score: 3}))
		wantScore(t, l, err, 3)
		time.Sleep(verifyGrace)
		synctest.Wait()
		if n := testutil.ToFloat64(s.in.verified.WithLabelValues("lead", "stale")); n != 1 {
			t.Errorf("%v found stale", n)
		}
	})
}

func TestVerifyOfLoadMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := newLocal(t, &Options{Verify: 1})
		leads := Of[lead](s, "lead", InProcess(Local{}))
		for score := range 2 {
			found, err := leads.LoadMany(ctx, []string{"1"}, ofEach(loads(lead{Score: int64(score)})))
			wantScore(t, found["1"], err, 0)
		}
		time.Sleep(verifyGrace)
		synctest.Wait()
		if n := testutil.ToFloat64(s.in.verified.WithLabelValues("lead", "stale")); n != 1 {
			t.Errorf("%v found stale", n)
		}
	})
}

// moody is a codec that writes equal values in ever other forms.
type moody struct {
	JSON
	n *atomic.Int64
}

func (m moody) ID() byte { return 99 }

func (m moody) Encode(v any) ([]byte, error) {
	data, err := m.JSON.Encode(v)
	return append(data, bytes.Repeat([]byte(" "), int(m.n.Add(1)))...), err
}

func TestVerifyOfEqualValuesInOtherForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := newLocal(t, &Options{Verify: 1})
		leads := Of[lead](s, "lead", InProcess(Local{}), WithCodec(moody{n: new(atomic.Int64)}))
		for range 2 {
			l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
			wantScore(t, l, err, 1)
		}
		time.Sleep(verifyGrace)
		synctest.Wait()
		if n := testutil.ToFloat64(s.in.verified.WithLabelValues("lead", "same")); n != 1 {
			t.Errorf("%v found the same", n)
		}
	})
}

func TestVerify(t *testing.T) {
	inMode(t, func(t *testing.T, rdb redis.UniversalClient, options ...ViewOption) {
		ctx := testContext(t)
		s := running(t, newStore(t, rdb, func(o *Options) { o.Verify = 1 }))
		leads := Of[lead](s, "lead", options...)
		var origin, blind atomic.Int64
		origin.Store(1)
		load := func(ctx context.Context, id string) (lead, error) {
			if _, err := scaleaware.WatermarkFrom(ctx).Written(ctx); err != nil {
				blind.Add(1)
			}
			return lead{ID: id, Score: origin.Load()}, nil
		}
		verified := func(outcome string) float64 {
			return testutil.ToFloat64(s.in.verified.WithLabelValues("lead", outcome))
		}
		for range 2 {
			l, err := leads.Load(ctx, "1", load)
			wantScore(t, l, err, 1)
		}
		eventually(t, "found the same", func() bool { return verified("same") == 1 })
		if blind.Load() != 1 {
			t.Errorf("%d of the loads were told to read where everything is seen, want the comparison's", blind.Load())
		}
		origin.Store(2) // and nobody deletes the entry
		l, err := leads.Load(ctx, "1", load)
		wantScore(t, l, err, 1)
		eventually(t, "found stale", func() bool { return verified("stale") == 1 })
		l, err = leads.Load(ctx, "1", load)
		wantScore(t, l, err, 1)
		if err := leads.Delete(ctx, "1"); err != nil { // a little late
			t.Fatal(err)
		}
		eventually(t, "found changed", func() bool { return verified("changed") == 1 })
		if n := verified("stale"); n != 1 {
			t.Errorf("%v stale", n)
		}
	})
}

// What is compared may be in use: it is not changed.
func TestVerifyChangesNothing(t *testing.T) {
	s := newLocal(t, nil)
	v := Of[map[string]int](s, "counts")
	served, loaded := map[string]int{"a": 1}, map[string]int{"b": 2}
	if same, err := v.same(served, loaded); same || err != nil {
		t.Errorf("%v, %v", same, err)
	}
	if len(served) != 1 || len(loaded) != 1 {
		t.Errorf("served %v, loaded %v", served, loaded)
	}
}

// A codec that panics while values are compared ends the comparison.
func TestVerifyWithAPanickingCodec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := newLocal(t, &Options{Verify: 1})
		var encodes, decodes atomic.Bool
		leads := Of[lead](s, "lead", InProcess(Local{}), WithCodec(panicking{encodes: &encodes, decodes: &decodes}))
		l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
		wantScore(t, l, err, 1)
		for n, panics := range []*atomic.Bool{&encodes, &decodes} {
			panics.Store(true)
			l, err = leads.Load(ctx, "1", loads(lead{Score: 2}))
			wantScore(t, l, err, 1)
			synctest.Wait()
			if got := testutil.ToFloat64(s.in.verified.WithLabelValues("lead", "failed")); got != float64(n+1) {
				t.Errorf("%v failed, want %d", got, n+1)
			}
			panics.Store(false)
		}
	})
}
