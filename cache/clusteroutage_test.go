package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// outage starts a cluster of its own, which a test kills whole and raises again.
func outage(t *testing.T, ctx context.Context) (c *rediscluster.Cluster, kill, raise func()) {
	t.Helper()
	c, err := rediscluster.Start(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	kill = func() {
		for _, n := range c.Nodes() {
			n.Kill()
		}
	}
	raise = func() {
		for _, n := range c.Nodes() {
			if err := n.Start(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.WaitHealthy(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return c, kill, raise
}

// downFor is how long a cluster is away: a minute in make cache-history.
func downFor(t *testing.T) time.Duration {
	if historyGoal(t) > 0 {
		return time.Minute
	}
	return 5 * time.Second
}

// nothingGrows waits until an outage has lasted, of which nothing may grow once a third has passed.
func nothingGrows(t *testing.T, ctx context.Context, down time.Duration) {
	t.Helper()
	size := func() (goroutines int, heap uint64) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	_ = sleep(ctx, down/3)
	goroutines, heap := size()
	_ = sleep(ctx, down-down/3)
	if n, bytes := size(); n > goroutines+50 || bytes > heap+16<<20 {
		t.Errorf("%d goroutines and %d bytes after a third of the outage, %d and %d at its end", goroutines, heap, n, bytes)
	}
}

// owesNothing waits until what could not be invalidated is.
func owesNothing(t *testing.T, s *Store) {
	t.Helper()
	eventually(t, "what is owed is paid", func() bool {
		s.debts.mu.Lock()
		defer s.debts.mu.Unlock()
		return len(s.debts.keys) == 0 && len(s.debts.patterns) == 0
	})
}

// The whole cluster is away for a while: the origin has no more than its cap, callers get
// their values or a typed error, nothing grows, and all is well again by itself.
func TestHistoryWithoutACluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cluster, kill, raise := outage(t, ctx)
	const most = 8
	s := running(t, newStore(t, client(t, cluster), func(o *Options) { o.RedisTimeout, o.MaxLoads = 250*time.Millisecond, most }))
	leads := Of[lead](s, "lead", InProcess(Local{}))
	var now, peak, calls, shed atomic.Int64
	origin := func(ctx context.Context, id string) (lead, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
		}
		return lead{ID: id, Score: 1}, sleep(ctx, 2*time.Millisecond)
	}
	var all sync.WaitGroup
	working, stop := context.WithCancel(ctx)
	defer all.Wait()
	defer stop()
	for worker := range 16 {
		all.Go(func() {
			for i := 0; working.Err() == nil; i++ {
				id := fmt.Sprint(worker, ":", i%50)
				l, err := leads.Load(ctx, id, origin)
				calls.Add(1)
				switch {
				case errors.Is(err, ErrShed):
					shed.Add(1)
				case err != nil || l.ID != id:
					t.Errorf("load: %+v, %v", l, err)
				}
				if _, err := leads.Get(ctx, id); err != nil && !errors.Is(err, ErrMiss) {
					t.Errorf("get: %v", err)
				}
				var failed KeyErrors
				if err := leads.Delete(ctx, id); i%10 == 0 && err != nil && !errors.As(err, &failed) {
					t.Errorf("delete: %v", err)
				}
				_ = sleep(working, time.Millisecond)
			}
		})
	}
	kill()
	nothingGrows(t, ctx, downFor(t))
	t.Logf("%d calls, %d of them shed, at most %d loads at a time", calls.Load(), shed.Load(), peak.Load())
	if peak.Load() > most || calls.Load() == 0 {
		t.Errorf("at most %d loads at a time, the cap is %d; %d calls", peak.Load(), most, calls.Load())
	}
	raise()
	stop()
	all.Wait()
	covered(t, s)
	settled(t, ctx, leads, "1", loads(lead{Score: 1}))
	owesNothing(t, s)
}

// So it is where stale values may be given: as long as there are any, nobody gets an error, though the origin has more to do than
// it may, and fails at times.
func TestHistoryOfStaleValuesWithoutACluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cluster, kill, raise := outage(t, ctx)
	const most = 4
	s := running(t, newStore(t, client(t, cluster), func(o *Options) {
		o.RedisTimeout, o.MaxLoads, o.LoadWait = 250*time.Millisecond, most, 20*time.Millisecond
	}))
	leads := Of[lead](s, "lead", InProcess(Local{}), TTL(time.Second), Jitter(0), StaleIfError(time.Hour))
	const kept, changed = 1, 2
	ids := spread(200)
	for _, id := range ids {
		settled(t, ctx, leads, id, loads(lead{Score: kept}))
	}
	kill()
	uncovered(t, s)
	var now, peak, asked, calls, stale atomic.Int64
	origin := func(ctx context.Context, id string) (lead, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil || asked.Add(1)%3 == 0 {
			return lead{}, errors.Join(err, errors.New("the origin fails"))
		}
		return lead{ID: id, Score: changed}, nil
	}
	take := func(id string, l lead, err error) {
		calls.Add(1)
		if l.Score == kept {
			stale.Add(1)
		}
		if err != nil || l.ID != id || l.Score != kept && l.Score != changed {
			t.Errorf("%s: %+v, %v", id, l, err)
		}
	}
	var all sync.WaitGroup
	working, stop := context.WithCancel(ctx)
	defer all.Wait()
	defer stop()
	for worker := range 16 {
		all.Go(func() {
			for i := worker; working.Err() == nil; i++ {
				id, other := ids[i*7%len(ids)], ids[i*11%len(ids)]
				l, err := leads.Load(ctx, id, origin)
				take(id, l, err)
				found, err := leads.LoadMany(ctx, []string{other}, ofEach(origin))
				take(other, found[other], err)
				_ = sleep(working, time.Millisecond)
			}
		})
	}
	nothingGrows(t, ctx, downFor(t))
	stop()
	all.Wait()
	t.Logf("%d calls, %d of them got stale values, %d loads, at most %d at a time", calls.Load(), stale.Load(), asked.Load(), peak.Load())
	if peak.Load() != most || stale.Load() == 0 || asked.Load() == 0 {
		t.Errorf("at most %d loads at a time, which are to be %d; %d stale values, %d loads", peak.Load(), most, stale.Load(), asked.Load())
	}
	raise()
	covered(t, s)
	settled(t, ctx, leads, ids[0], loads(lead{Score: changed}))
	owesNothing(t, s)
}

// The whole cluster and the origin are away: what is stale is served where the view allows it.
func TestStaleWithoutACluster(t *testing.T) {
	ctx := testContext(t)
	cluster, kill, raise := outage(t, ctx)
	s := running(t, newStore(t, client(t, cluster), func(o *Options) { o.RedisTimeout = 250 * time.Millisecond }))
	leads := Of[lead](s, "lead", TTL(time.Second), Jitter(0), StaleIfError(time.Hour), InProcess(Local{}))
	ids := spread(20)
	for _, id := range ids {
		settled(t, ctx, leads, id, loads(lead{Score: 1}))
	}
	kill()
	away := func(context.Context, string) (lead, error) { return lead{}, errors.New("the origin is away") }
	for began := time.Now(); time.Since(began) < 2*time.Second; { // beyond Silence, and beyond the values' lives
		for _, id := range ids {
			l, err := leads.Load(ctx, id, away)
			if err != nil || l.Score != 1 {
				t.Fatalf("%v after the cluster had died: %+v, %v", time.Since(began), l, err)
			}
		}
	}
	raise()
	covered(t, s)
	settled(t, ctx, leads, ids[0], loads(lead{Score: 2}))
}
