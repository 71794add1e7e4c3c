package cache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/scaleaware/scaleaware/admin"
)

// newLocal is a store without Redis.
func newLocal(t *testing.T, o *Options) *Store {
	t.Helper()
	s, err := NewLocal(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLocalOperations(t *testing.T) {
	ctx := testContext(t)
	s := newLocal(t, nil)
	leads := Of[lead](s, "lead", InProcess(Local{}), TTL(time.Minute), Jitter(0))
	for range 2 {
		l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
		wantScore(t, l, err, 1)
	}
	for _, op := range s.Operations() {
		if op.ID == "cache.hit-rate" {
			reply, err := op.Do(ctx, &admin.Call{})
			if rate, ok := reply.(HitRate); err != nil || !ok || rate.Degraded != "" || rate.Processes != 1 || rate.Total.Lookups != 2 {
				t.Errorf("hit rate: %+v, %v", reply, err)
			}
		}
	}
	if report, err := s.InvalidateWith(ctx, Invalidation{Pattern: "lead:*", DryRun: true}); err != nil || !report.Complete || report.Changed != 1 || inProcess(leads, "1") == nil {
		t.Errorf("dry run: %+v, %v", report, err)
	}
	if report, err := s.ExtendTTLs(ctx, Extension{Factor: 2, DryRun: true}); err != nil || !report.Complete || s.extension.Load() != nil {
		t.Errorf("dry run: %+v, %v", report, err)
	}
	lives := func(id string) time.Duration {
		t.Helper()
		l, err := leads.Load(ctx, id, loads(lead{Score: 1}))
		wantScore(t, l, err, 1)
		r := inProcess(leads, id)
		if r == nil {
			t.Fatal("it is not kept")
		}
		return r.end - r.rest.kept
	}
	if report, err := s.ExtendTTLs(ctx, Extension{Factor: 3}); err != nil || !report.Complete {
		t.Errorf("extend: %+v, %v", report, err)
	}
	if life := lives("2"); life < 3*time.Minute {
		t.Errorf("extended, and lives %v", life)
	}
	if report, err := s.RestoreTTLs(ctx); err != nil || !report.Complete {
		t.Errorf("restore: %+v, %v", report, err)
	}
	if life := lives("3"); life >= 2*time.Minute {
		t.Errorf("restored, and lives %v", life)
	}
}

// What is kept in a store without Redis is compared with its origin, too.
func TestLocalVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := newLocal(t, &Options{Verify: 1})
		leads := Of[lead](s, "lead", InProcess(Local{}))
		l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
		wantScore(t, l, err, 1)
		for _, c := range []struct {
			outcome string
			meet    func() error
		}{
			{"stale", func() error { return nil }},
			{"changed", func() error { return leads.Set(ctx, "1", lead{ID: "1", Score: 1}) }},
			{"changed", func() error { return leads.Delete(ctx, "1") }},
		} {
			before := testutil.ToFloat64(s.in.verified.WithLabelValues("lead", c.outcome))
			l, err := leads.Load(ctx, "1", loads(lead{Score: 2}))
			wantScore(t, l, err, 1)
			synctest.Wait() // it waits for news of an invalidation
			if err := c.meet(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(verifyGrace)
			synctest.Wait()
			if n := testutil.ToFloat64(s.in.verified.WithLabelValues("lead", c.outcome)) - before; n != 1 {
				t.Errorf("%v found %s", n, c.outcome)
			}
		}
	})
}

func TestLocalSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := newLocal(t, &Options{WarmSchedule: "0 * * * *"})
		leads := Of[lead](s, "lead", InProcess(Local{}))
		err := leads.DeclareWarm(WarmSet[lead]{
			Name: "all",
			Keys: func(context.Context) ([]string, error) { return []string{"1"}, nil },
			Load: loads(lead{Score: 1}),
		})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if inProcess(leads, "1") == nil {
			t.Error("an hour has passed, and nothing was warmed")
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestLocalStaleIfError(t *testing.T) {
	away := errors.New("away")
	fails := func(context.Context, string) (lead, error) { return lead{}, away }
	for _, many := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			s := newLocal(t, nil)
			leads := Of[lead](s, "lead", InProcess(Local{}), TTL(time.Minute), Jitter(0), StaleWhileRevalidate(time.Minute), StaleIfError(time.Hour))
			load := func(load Loader[lead]) (lead, error) {
				if !many {
					return leads.Load(ctx, "1", load)
				}
				found, err := leads.LoadMany(ctx, []string{"1"}, ofEach(load))
				var failed KeyErrors
				if errors.As(err, &failed) {
					err = failed["1"]
				}
				return found["1"], err
			}
			l, err := load(loads(lead{Score: 1}))
			wantScore(t, l, err, 1)
			time.Sleep(3 * time.Minute)
			if l, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
				t.Errorf("Get served what is for errors only: %+v, %v", l, err)
			}
			if found, err := leads.GetMany(ctx, []string{"1"}); err != nil || len(found) != 0 {
				t.Errorf("GetMany served what is for errors only: %+v, %v", found, err)
			}
			l, err = load(fails)
			wantScore(t, l, err, 1)
			if n := testutil.ToFloat64(s.in.fallbacks.WithLabelValues("lead")); n != 1 {
				t.Errorf("%v fallbacks counted", n)
			}
			l, err = load(loads(lead{Score: 2}))
			wantScore(t, l, err, 2)
			time.Sleep(3 * time.Minute)
			if err := leads.Delete(ctx, "1"); err != nil {
				t.Fatal(err)
			}
			if l, err := load(fails); !errors.Is(err, away) {
				t.Errorf("deleted, and got %+v, %v", l, err)
			}
			l, err = load(loads(lead{Score: 3}))
			wantScore(t, l, err, 3)
			time.Sleep(62 * time.Minute)
			if l, err := load(fails); !errors.Is(err, away) {
				t.Errorf("past its window, and got %+v, %v", l, err)
			}
		})
	}
}

func TestLocalEarlyRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		leads := Of[lead](newLocal(t, nil), "lead", InProcess(Local{}), TTL(time.Minute), Jitter(0), EarlyRefresh(10))
		l, err := leads.Load(ctx, "1", func(_ context.Context, id string) (lead, error) {
			time.Sleep(5 * time.Second)
			return lead{ID: id, Score: 1}, nil
		})
		wantScore(t, l, err, 1)
		time.Sleep(59 * time.Second)
		for range 100 { // each has a chance of 98 %
			if _, err := leads.Load(ctx, "1", loads(lead{Score: 2})); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		l, err = leads.Get(ctx, "1")
		wantScore(t, l, err, 2)
	})
}

// What Set has kept is not replaced by what a load read before it returned.
func TestLocalSetIsNotOverwritten(t *testing.T) {
	ctx := testContext(t)
	s := newLocal(t, nil)
	leads := Of[lead](s, "lead", InProcess(Local{}))
	key := leads.prefix + "1"
	loaded := header{kind: kindValue}

	// A load begins after Set has dropped what was there, and ends after Set has kept what is new.
	fl := &fill{key: key, id: "1"}
	leads.dropKey("1")
	if leads.claimHere(fl, &flight[lead]{done: make(chan struct{})}) {
		t.Fatal("nothing is kept")
	}
	put := &fill{key: key, id: "1", ticket: leads.near.ticket(s, key, "1", s.now())}
	put.ticket.put = true
	leads.keepLoaded(put, loaded, lead{Score: 2}, nil)
	leads.keepLoaded(fl, loaded, lead{Score: 1}, nil)
	l, err := leads.Get(ctx, "1")
	wantScore(t, l, err, 2)

	// A load looks before a Set, and begins after it.
	for _, load := range []func(fl *fill, load Loader[lead]) (lead, error){
		func(fl *fill, load Loader[lead]) (lead, error) { return leads.share(ctx, fl, load) },
		func(fl *fill, load Loader[lead]) (l lead, err error) {
			leads.shareMany(ctx, map[string]*entry{fl.id: &fl.seen}, nil, nil, ofEach(load), s.opts.RedisTimeout, func(_ string, v lead, e error) { l, err = v, e })
			return l, err
		},
	} {
		if err := leads.Set(ctx, "1", lead{Score: 3}); err != nil {
			t.Fatal(err)
		}
		l, err = load(&fill{key: key, id: "1"}, loads(lead{Score: 1}))
		wantScore(t, l, err, 3)
		l, err = leads.Get(ctx, "1")
		wantScore(t, l, err, 3)
	}
}
