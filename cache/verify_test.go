package cache

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

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
