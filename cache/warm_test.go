package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/redisclient"
)

func numbers(n int) func(context.Context) ([]string, error) {
	return func(context.Context) ([]string, error) {
		var ids []string
		for i := range n {
			ids = append(ids, fmt.Sprint(i))
		}
		return append(ids, "0"), nil // twice the same
	}
}

func TestWarmReportsAndGoesOn(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, many := range []bool{false, true} {
			t.Run(fmt.Sprintf("many=%v", many), func(t *testing.T) { testWarm(t, rdb, many) })
		}
	})
}

// ofEach makes a ManyLoader of a Loader.
func ofEach(load Loader[lead]) ManyLoader[lead] {
	return func(ctx context.Context, ids []string) (map[string]lead, error) {
		found, failed := map[string]lead{}, KeyErrors{}
		for _, id := range ids {
			if l, err := load(ctx, id); err != nil {
				failed[id] = err
			} else {
				found[id] = l
			}
		}
		return found, failed.orNil()
	}
}

func testWarm(t *testing.T, rdb redis.UniversalClient, many bool) {
	ctx := testContext(t)
	s := newStore(t, rdb, nil)
	leads, events := Of[lead](s, "lead"), Of[lead](s, "event")
	var calls, now, most atomic.Int64
	away := errors.New("origin is away")
	failing := atomic.Bool{}
	failing.Store(true)
	load := func(_ context.Context, id string) (lead, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		calls.Add(1)
		switch {
		case id == "13":
			return lead{}, ErrNotFound
		case id == "14" && failing.Load():
			return lead{}, away
		}
		return lead{ID: id}, nil
	}
	low := WarmSet[lead]{Name: "low", Keys: numbers(250), Load: load, Concurrency: 3}
	if many {
		low.Load, low.LoadMany = nil, ofEach(load)
	}
	var order []string
	var mu sync.Mutex
	for _, err := range []error{
		leads.DeclareWarm(low),
		events.DeclareWarm(WarmSet[lead]{Name: "high", Priority: 9, Keys: func(context.Context) ([]string, error) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, "high")
			return nil, nil
		}, Load: load}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		if err := leads.Set(ctx, fmt.Sprint(i), lead{}); err != nil {
			t.Fatal(err)
		}
	}
	dry, err := s.WarmWith(ctx, Warming{DryRun: true})
	if err != nil || calls.Load() != 0 || dry.Sets[1].Loaded != 240 {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	steps := 0
	report, err := s.WarmWith(ctx, Warming{Progress: func(WarmReport) { steps++ }})
	if err == nil || report.Complete || len(report.Sets) != 2 || report.Sets[0].Name != "high" || !slices.Contains(order, "high") {
		t.Fatalf("%+v, %v", report, err)
	}
	got := report.Sets[1]
	got.Seconds = 0
	want := WarmSetReport{Name: "low", Keys: 250, Current: 10, Loaded: 238, NotFound: 1, Failed: 1, Error: away.Error()}
	if got != want || steps < 4 || most.Load() > 3 {
		t.Errorf("got %+v, %d steps, %d at a time", got, steps, most.Load())
	}
	failing.Store(false)
	calls.Store(0)
	report, err = s.Warm(ctx, "low")
	if err != nil || !report.Complete || calls.Load() != 2 || report.Sets[0].Current != 248 {
		t.Errorf("second run: %+v, %d loads, %v", report, calls.Load(), err)
	}
	if h := s.HitRate(); h.Total.Lookups != 0 {
		t.Errorf("warming counts as look-ups: %+v", h)
	}
}

// Of all processes whose schedule comes due, one warms.
func TestScheduledWarmingRunsOnceForAll(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		first := newStore(t, rdb, nil)
		stores := []*Store{first, sibling(t, first), sibling(t, first)}
		var runs atomic.Int64
		for _, s := range stores {
			err := Of[lead](s, "lead").DeclareWarm(WarmSet[lead]{Name: "hot", Load: loads(lead{}), Keys: func(context.Context) ([]string, error) {
				runs.Add(1)
				return []string{"1"}, nil
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		for i, tick := range []time.Time{time.Unix(1700000000, 0), time.Unix(1700021600, 0)} {
			var wg sync.WaitGroup
			for _, s := range stores {
				wg.Go(func() {
					if err := s.warmOnce(ctx, tick); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := runs.Load(); n != int64(i+1) {
				t.Errorf("%d runs after %d ticks", n, i+1)
			}
		}
	})
}

// When the process that warms for a tick dies, another goes on with it; when it ends, nobody does.
func TestScheduledWarmingOutlivesWhoBeganIt(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	ran := make(chan struct{}, 2)
	err := Of[lead](s, "lead").DeclareWarm(WarmSet[lead]{Name: "hot", Load: loads(lead{}), Keys: func(context.Context) ([]string, error) {
		ran <- struct{}{}
		return []string{"1"}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	tick := time.Unix(1700000000, 0)
	const dies = 500 * time.Millisecond
	dead := redisclient.NewLease(s.rdb, s.opts.Prefix+metaMark+"warm:1700000000:lease", dies)
	if mine, err := dead.Hold(ctx); err != nil || !mine {
		t.Fatal(mine, err)
	}
	began := time.Now()
	if err := s.warmOnce(ctx, tick); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); len(ran) != 1 || took < dies/2 {
		t.Errorf("%d runs, after %v", len(ran), took)
	}
	if err := sibling(t, s).warmOnce(ctx, tick); err != nil || len(ran) != 1 {
		t.Errorf("%d runs, %v", len(ran), err)
	}
	// Who is told to end leaves the rest to others at once.
	<-ran
	stopped, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	slow := newStore(t, s.rdb, func(o *Options) { *o = s.opts })
	g := newGate()
	if err := Of[lead](slow, "lead").DeclareWarm(WarmSet[lead]{Name: "hot", Load: g.load, Keys: numbers(2)}); err != nil {
		t.Fatal(err)
	}
	next := tick.Add(6 * time.Hour)
	if err := Of[lead](s, "lead").Delete(ctx, "0", "1"); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- slow.warmOnce(stopped, next) }()
	<-g.entered
	<-g.entered
	stop()
	if err := <-ended; err == nil {
		t.Error("it was cut short and says nothing")
	}
	g.release <- lead{}
	g.release <- lead{}
	if err := s.warmOnce(ctx, next); err != nil || len(ran) != 1 {
		t.Errorf("%d runs when the one before was told to end, %v", len(ran), err)
	}
}

// Loads that warm a view without ages are not told what invalidations ask for.
func TestWarmingAnUntrackedViewAsksForNoAge(t *testing.T) {
	for _, many := range []bool{false, true} {
		ctx := testContext(t)
		s := newStore(t, client(t, one.Get(t)), nil)
		rates := Of[lead](s, "rate", Untracked())
		if _, err := s.Invalidate(wrote(ctx, at(10)), "*"); err != nil {
			t.Fatal(err)
		}
		load := func(ctx context.Context, id string) (lead, error) {
			if need, err := scaleaware.WatermarkFrom(ctx).Written(ctx); err != nil || len(need) > 0 {
				t.Errorf("many %v: a load was told that it must have seen %v, %v", many, need, err)
			}
			return loads(lead{Score: 1}, at(9))(ctx, id)
		}
		set := WarmSet[lead]{Name: "rates", Keys: numbers(3)}
		if many {
			set.LoadMany = ofEach(load)
		} else {
			set.Load = load
		}
		if err := rates.DeclareWarm(set); err != nil {
			t.Fatal(err)
		}
		if report, err := s.Warm(ctx); err != nil || report.Sets[0].Loaded != 3 {
			t.Errorf("many %v: %+v, %v", many, report, err)
		}
		l, err := rates.Get(ctx, "0")
		wantScore(t, l, err, 1)
	}
}

// A set with LoadMany asks the origin for at most 500 keys at once, and so often at a time as it may.
func TestWarmLoadsManyAtOnce(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads := Of[lead](s, "lead")
		var asked, now, most atomic.Int64
		two, three := make(chan struct{}), make(chan struct{})
		err := leads.DeclareWarm(WarmSet[lead]{Name: "all", Keys: numbers(1700), LoadMany: func(ctx context.Context, ids []string) (map[string]lead, error) {
			n := now.Add(1)
			defer now.Add(-1)
			if n == 2 && most.CompareAndSwap(0, 2) {
				close(two)
			} else if n == 3 && most.CompareAndSwap(2, 3) {
				close(three)
			}
			select {
			case <-two:
			case <-ctx.Done():
			}
			select { // a third one would come at once
			case <-three:
			case <-time.After(50 * time.Millisecond):
			}
			if len(ids) > 500 {
				t.Errorf("asked for %d keys at once", len(ids))
			}
			asked.Add(int64(len(ids)))
			return ofEach(loads(lead{Score: 1}))(ctx, ids)
		}})
		if err != nil {
			t.Fatal(err)
		}
		report, err := s.Warm(ctx)
		if err != nil || report.Sets[0].Loaded != 1700 || asked.Load() != 1700 || most.Load() != 2 {
			t.Errorf("%+v, %v: asked for %d keys, %d loads at a time", report, err, asked.Load(), most.Load())
		}
		ids, _ := numbers(1700)(ctx)
		if found, err := leads.GetMany(ctx, ids); err != nil || len(found) != 1700 {
			t.Errorf("%d are there, %v", len(found), err)
		}
	})
}

func TestWarmSetRefused(t *testing.T) {
	one, many := loads(lead{}), ofEach(loads(lead{}))
	for name, set := range map[string]WarmSet[lead]{
		"no keys":     {Name: "x", Load: one},
		"no loader":   {Name: "x", Keys: numbers(1)},
		"two loaders": {Name: "x", Keys: numbers(1), Load: one, LoadMany: many},
		"no name":     {Keys: numbers(1), Load: one},
		"negative":    {Name: "x", Keys: numbers(1), Load: one, Concurrency: -1},
	} {
		s, err := NewLocal(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := Of[lead](s, "lead").DeclareWarm(set); err == nil || s.Ready(t.Context()) == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
