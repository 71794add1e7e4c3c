package cache

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A refresh that a loader begins runs beside it, so it needs a turn of its own.
func TestRefreshInALoaderTakesATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := newLocal(t, &Options{MaxLoads: 1})
		inner := Of[lead](s, "inner", InProcess(Local{}), TTL(time.Minute), Jitter(0), StaleWhileRevalidate(time.Hour))
		outer := Of[lead](s, "outer", InProcess(Local{}))
		l, err := inner.Load(ctx, "1", loads(lead{Score: 1}))
		wantScore(t, l, err, 1)
		time.Sleep(2 * time.Minute)
		g := newGate()
		l, err = outer.Load(ctx, "1", func(ctx context.Context, _ string) (lead, error) {
			l, err := inner.Load(ctx, "1", g.load)
			synctest.Wait()
			return l, err
		})
		wantScore(t, l, err, 1)
		if n := testutil.ToFloat64(s.in.refreshes.WithLabelValues("inner", "shed")); n != 1 || g.calls.Load() != 0 {
			t.Errorf("%v refreshes were shed, %d ran beside the loader", n, g.calls.Load())
		}
	})
}

// A load that waits for its turn goes on at once when a loader waits for it: else each would wait for the other.
func TestLoaderLendsItsTurn(t *testing.T) {
	ids := []string{"1", "2"}
	type load func(ctx context.Context, v *View[lead], ids []string) error
	one := func(ctx context.Context, v *View[lead], ids []string) error {
		_, err := v.Load(ctx, ids[0], loads(lead{Score: 1}))
		return err
	}
	many := func(ctx context.Context, v *View[lead], ids []string) error {
		found, err := v.LoadMany(ctx, ids, ofEach(loads(lead{Score: 1})))
		if err == nil && len(found) != len(ids) {
			err = fmt.Errorf("got %v", found)
		}
		return err
	}
	for _, adapt := range []bool{false, true} {
		for name, c := range map[string]struct{ first, nested load }{
			"load, load": {one, one}, "load, many": {one, many}, "many, load": {many, one}, "many, many": {many, many},
		} {
			t.Run(fmt.Sprint(name, ", adapt ", adapt), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, began := t.Context(), time.Now()
					s := newLocal(t, &Options{MaxLoads: 1, AdaptLoads: adapt})
					inner, outer := Of[lead](s, "inner", InProcess(Local{})), Of[lead](s, "outer", InProcess(Local{}))
					entered, goOn := make(chan struct{}), make(chan struct{})
					out := background(ctx, outer, "1", func(ctx context.Context, id string) (lead, error) {
						close(entered)
						<-goOn
						return lead{ID: id}, c.nested(ctx, inner, ids)
					})
					<-entered
					first := make(chan error, 1)
					go func() { first <- c.first(ctx, inner, ids) }()
					synctest.Wait() // it waits for its turn
					close(goOn)
					if got := <-out; got.err != nil {
						t.Errorf("the outer load: %v", got.err)
					}
					if err := <-first; err != nil {
						t.Errorf("the load that it waited for: %v", err)
					}
					if took := time.Since(began); took != 0 {
						t.Errorf("it took %v", took)
					}
					l, err := outer.Load(ctx, "2", loads(lead{Score: 2})) // the turn was given back once
					wantScore(t, l, err, 2)
					l, err = outer.Load(ctx, "3", loads(lead{Score: 3}))
					wantScore(t, l, err, 3)
				})
			})
		}
	}
}
