package cache

import (
	"context"
	"fmt"
	"sync"
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

// A store that is running hears of the lease of a load that waits for its turn, and forgets its flight: a loader finds the
// claim alone, itself or by a load that it joins.
func TestLoaderLendsItsTurnToAForgottenLoad(t *testing.T) {
	ids := []string{"1", "2"}
	type load func(ctx context.Context, v *View[lead], load Loader[lead]) (lead, error)
	single := func(ctx context.Context, v *View[lead], load Loader[lead]) (lead, error) {
		return v.Load(ctx, "1", load)
	}
	many := func(ctx context.Context, v *View[lead], load Loader[lead]) (lead, error) {
		found, err := v.LoadMany(ctx, ids, ofEach(load))
		if err == nil && len(found) != len(ids) {
			err = fmt.Errorf("got %v", found)
		}
		return found["1"], err
	}
	for name, c := range map[string]struct {
		first, nested load
		firsts        []string // the keys that first loads
		between       bool     // the loader joins a load that waits for the claim
	}{
		"load, load":      {single, single, ids[:1], false},
		"load, many":      {single, many, ids[:1], false},
		"many, load":      {many, single, ids, false},
		"many, many":      {many, many, ids, false},
		"by another load": {single, single, ids[:1], true},
		"by another, all": {many, many, ids, true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			s := newStore(t, client(t, one.Get(t)), func(o *Options) { o.MaxLoads, o.LoadWait, o.LoadTimeout = 1, time.Minute, 20*time.Second })
			inner, outer := Of[lead](s, "inner"), Of[lead](s, "outer")
			running(t, s)
			var mu sync.Mutex
			ran := make(map[string]int64) // by key, 100 for each run of another than the first loader
			counted := func(by int64, load Loader[lead]) Loader[lead] {
				return func(ctx context.Context, id string) (lead, error) {
					mu.Lock()
					ran[id] += by
					mu.Unlock()
					return load(ctx, id)
				}
			}
			entered, goOn := make(chan struct{}), make(chan struct{})
			out := background(ctx, outer, "1", func(ctx context.Context, _ string) (lead, error) {
				close(entered)
				<-goOn
				return c.nested(ctx, inner, counted(100, loads(lead{Score: 2})))
			})
			<-entered
			begin := func(load load, by int64, score int64) <-chan outcome {
				done := make(chan outcome, 1)
				go func() {
					l, err := load(ctx, inner, counted(by, loads(lead{Score: score})))
					done <- outcome{l, err}
				}()
				return done
			}
			first := begin(c.first, 1, 1)
			for _, id := range c.firsts {
				key := inner.prefix + id
				eventually(t, "the load has the claim, and is forgotten", func() bool {
					inner.flights.mu.Lock()
					defer inner.flights.mu.Unlock()
					return inner.flights.own[key] == nil && s.rdb.Exists(ctx, key).Val() == 1
				})
				keepClaimOf(t, s, key)
			}
			var between <-chan outcome
			if c.between {
				between = begin(c.first, 100, 3)
				eventually(t, "another load waits for the claim", func() bool {
					return testutil.ToFloat64(s.in.waited.WithLabelValues("inner")) >= float64(len(c.firsts))
				})
			}
			close(goOn)
			for what, done := range map[string]<-chan outcome{"the loader": out, "the load that it waited for": first, "the one between": between} {
				if done == nil {
					continue
				}
				if got := <-done; got.err != nil || got.lead.Score != 1 {
					t.Errorf("%s got %v, %v", what, got.lead, got.err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, id := range c.firsts {
				if ran[id] != 1 {
					t.Errorf("of key %s loaders ran as %d says", id, ran[id])
				}
			}
			eventually(t, "nobody waits for a turn or lends one", func() bool {
				s.queued.mu.Lock()
				defer s.queued.mu.Unlock()
				return len(s.queued.byKey) == 0
			})
			l, err := outer.Load(ctx, "2", loads(lead{Score: 2})) // the turn was given back
			wantScore(t, l, err, 2)
		})
	}
}

// keepClaimOf keeps up the claim on key of a load that waits for its turn, on a busy machine.
func keepClaimOf(t *testing.T, s *Store, key string) {
	t.Helper()
	raw, err := s.get(t.Context(), key)
	h, _, parse := parseHeader(raw)
	if err != nil || parse != nil || h.claim == 0 {
		t.Fatalf("no claim on %s: %v, %v", key, err, parse)
	}
	t.Cleanup(s.keepClaims(t.Context(), &fill{key: key, gen: h.gen, claim: h.claim}))
}
