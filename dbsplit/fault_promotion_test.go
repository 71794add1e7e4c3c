package dbsplit_test

import (
	"context"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// From the moment at which the promoted server accepts writes it takes one look of the monitor until they arrive there:
// after a clean stop of the old primary, after its death, and when it has vanished without a word. None is applied twice.
func TestFirstWriteAfterPromotion(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lose  func(ctx context.Context, old *pgcluster.Server, p *faultconn.Proxy) error
		keeps bool // the replica has everything that was acknowledged
		goal  time.Duration
	}{
		"stopped": {func(ctx context.Context, old *pgcluster.Server, _ *faultconn.Proxy) error { return old.Stop(ctx) }, true, 300 * time.Millisecond},
		"killed":  {func(_ context.Context, old *pgcluster.Server, _ *faultconn.Proxy) error { old.Kill(); return nil }, false, 300 * time.Millisecond},
		"black-holed": {func(_ context.Context, _ *pgcluster.Server, p *faultconn.Proxy) error {
			p.Blackhole(faultconn.Both)
			return nil
		}, false, 2 * time.Second},
		"half-open": {func(_ context.Context, _ *pgcluster.Server, p *faultconn.Proxy) error {
			p.HalfOpen()
			p.Refuse()
			return nil
		}, false, 2 * time.Second},
		"reset": {func(_ context.Context, _ *pgcluster.Server, p *faultconn.Proxy) error {
			p.Refuse()
			p.Reset()
			return nil
		}, false, 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, 100*time.Second)
			c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
			must(t, err)
			t.Cleanup(func() { c.Close() })
			p, through := proxied(t, c.Primary(), "postgres")
			nodes := nodesOf(c, "postgres")
			nodes.Primary = through
			db := run(t, nodes, &dbsplit.Options{FailoverWait: time.Minute})
			await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
			b := openLedger(t, db)
			must(t, c.Replica(0).WaitCaughtUp(ctx))
			b.write(t, db, 2)
			b.progress(t, db, 30)
			must(t, test.lose(ctx, c.Primary(), p))
			must(t, c.Replica(0).Promote(ctx))
			promoted := time.Now()
			await(t, db, "writes", func() bool { return !b.firstAfter(promoted).IsZero() })
			b.progress(t, db, 30)
			b.stop()
			t.Logf("the first good write came %v after the promotion, the goal is %v", b.firstAfter(promoted).Sub(promoted), test.goal)
			if took := b.firstAfter(promoted).Sub(promoted); took > test.goal+5*time.Second { // leaves room for a busy machine
				t.Errorf("the first good write came %v after the promotion, the goal is %v", took, test.goal)
			}
			p.Heal()
			since := promoted
			if test.keeps {
				since = time.Time{}
			}
			b.settle(t, db, since)
		})
	}
}
