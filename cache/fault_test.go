package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

// breakable is the shared cluster for a test that breaks a node: afterwards all run again and agree.
func breakable(t *testing.T, ctx context.Context, set func(*Options)) (*rediscluster.Cluster, *View[lead], *rediscluster.Node) {
	t.Helper()
	cluster := six.Get(t)
	if err := cluster.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, client(t, cluster), func(o *Options) {
		o.RedisTimeout = 0 // the default is under test
		if set != nil {
			set(o)
		}
	})
	leads := Of[lead](s, "lead")
	victim, err := cluster.MasterFor(ctx, leads.prefix+"{x}1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		victim.Thaw()
		if !victim.Running() {
			if err := victim.Start(ctx); err != nil {
				t.Error(err)
			}
		}
		if err := cluster.WaitHealthy(ctx); err != nil {
			t.Error(err)
		}
	})
	return cluster, leads, victim
}

const (
	// slack is what a call may take beyond its budget on a busy machine. Without a budget it would take five seconds.
	slack = time.Second
	// longBudget is for what must not take two of them.
	longBudget = 3 * slack / 2
)

func withLongBudget(o *Options) { o.RedisTimeout = longBudget }

func TestHungMasterCostsOneBudget(t *testing.T) {
	costsOneBudget(t, (*rediscluster.Node).Freeze, context.DeadlineExceeded)
}

func TestDeadMasterCostsOneBudget(t *testing.T) {
	costsOneBudget(t, (*rediscluster.Node).Kill, syscall.ECONNREFUSED)
}

// costsOneBudget checks what calls to a master take that is lost, and whose place nobody takes.
func costsOneBudget(t *testing.T, lose func(*rediscluster.Node), cause error) {
	ctx := testContext(t)
	cluster := steady(t, ctx)
	leads := Of[lead](newStore(t, client(t, cluster), withLongBudget), "lead")
	victim, err := cluster.MasterFor(ctx, leads.prefix+"{x}1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(victim.Thaw)
	if _, err := leads.Load(ctx, "{x}1", loads(lead{Score: 1})); err != nil {
		t.Fatal(err)
	}
	lose(victim)
	budget := leads.store.opts.RedisTimeout
	for name, call := range map[string]func() error{
		"load": func() error {
			l, err := leads.Load(ctx, "{x}1", loads(lead{Score: 2}))
			if err == nil && l.Score != 2 {
				err = fmt.Errorf("got %+v", l)
			}
			return err
		},
		"get": func() error {
			_, err := leads.Get(ctx, "{x}1")
			if errors.Is(err, ErrMiss) && errors.Is(err, cause) {
				return nil
			}
			return fmt.Errorf("got %w", err)
		},
		"get many": func() error {
			_, err := leads.GetMany(ctx, []string{"{x}1", "{x}2"})
			var failed KeyErrors
			if errors.As(err, &failed) && len(failed) == 2 {
				return nil
			}
			return fmt.Errorf("got %w", err)
		},
		"delete": func() error {
			var failed KeyErrors
			if err := leads.Delete(ctx, "{x}1"); !errors.As(err, &failed) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		},
		"ready": func() error {
			if err := leads.store.Ready(ctx); err == nil || !strings.Contains(err.Error(), victim.Addr()) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		},
	} {
		began := time.Now()
		err := call()
		took := time.Since(began)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took > budget+slack {
			t.Errorf("%s took %v, the budget is %v", name, took, budget)
		}
	}
	if n := testutil.ToFloat64(leads.store.in.background.WithLabelValues("cache", "read")); n == 0 {
		t.Error("nothing was counted")
	}
}

// A master that hangs while the origin is asked costs the attempt to store, not one more to let others load.
func TestMasterThatHangsUnderALoadCostsOneBudget(t *testing.T) {
	ctx := testContext(t)
	_, leads, victim := breakable(t, ctx, withLongBudget)
	if _, err := leads.Load(ctx, "{x}1", loads(lead{Score: 1})); err != nil { // connections are there
		t.Fatal(err)
	}
	var hung time.Time
	got, err := leads.Load(ctx, "{x}2", func(context.Context, string) (lead, error) {
		victim.Freeze()
		hung = time.Now()
		return lead{Score: 2}, nil
	})
	if err != nil || got.Score != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if took, budget := time.Since(hung), leads.store.opts.RedisTimeout; took > budget+slack {
		t.Errorf("took %v, the budget is %v", took, budget)
	}
}

// So it is for a batch of more than is stored in one go; what other masters have of it is stored.
func TestMasterThatHangsUnderABatchCostsOneBudget(t *testing.T) {
	ctx := testContext(t)
	cluster, leads, victim := breakable(t, ctx, withLongBudget)
	var ids, others []string
	for i := range 2*landsAtATime + 1 {
		id := fmt.Sprint("then", i)
		ids = append(ids, id)
		if i >= 100 {
			continue
		}
		if master, err := cluster.MasterFor(ctx, leads.prefix+id); err != nil {
			t.Fatal(err)
		} else if master != victim {
			others = append(others, id)
		}
	}
	slices.Sort(ids) // as they are loaded
	// Connections are there, and the scripts are known.
	first, err := numbers(99)(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leads.LoadMany(ctx, first, ofEach(loads(lead{}))); err != nil {
		t.Fatal(err)
	}
	var hung time.Time
	load := func(_ context.Context, ids []string) (map[string]lead, error) {
		victim.Freeze()
		hung = time.Now()
		found := map[string]lead{}
		for _, id := range ids {
			found[id] = lead{ID: id}
		}
		return found, nil
	}
	got, err := leads.LoadMany(ctx, ids, load)
	took, budget := time.Since(hung), leads.store.opts.RedisTimeout
	if err != nil || len(got) != len(ids) {
		t.Errorf("%d of %d, %v", len(got), len(ids), err)
	}
	if took > budget+slack {
		t.Errorf("took %v, the budget is %v", took, budget)
	}
	others = slices.DeleteFunc(others, func(id string) bool { return slices.Index(ids, id) >= landsAtATime })
	if stored, err := leads.GetMany(ctx, others); err != nil || len(stored) != len(others) || len(others) == 0 {
		t.Errorf("of %d keys that other masters have %d were stored, %v", len(others), len(stored), err)
	}
}

func TestKilledMasterOriginIsProtectedAndCacheRecovers(t *testing.T) {
	ctx := testContext(t)
	_, leads, victim := breakable(t, ctx, func(o *Options) { o.MaxLoads = 4 })
	var now, most, failed atomic.Int64
	origin := func(_ context.Context, id string) (lead, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		return lead{ID: id, Score: 3}, nil
	}
	victim.Kill()
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			for i := range 5 {
				l, err := leads.Load(ctx, fmt.Sprintf("{x}%d", worker*5+i), origin)
				if err != nil && !errors.Is(err, ErrShed) || err == nil && l.Score != 3 {
					t.Errorf("%+v, %v", l, err)
				}
				if err != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if most.Load() > 4 {
		t.Errorf("%d loads at a time, the cap is 4", most.Load())
	}
	if failed.Load() > 0 {
		t.Errorf("%d of 80 calls were shed by an origin that answers at once", failed.Load())
	}
	eventually(t, "the promoted replica serves hits", func() bool {
		_, _ = leads.Load(ctx, "{x}1", origin)
		_, err := leads.Get(ctx, "{x}1")
		return err == nil
	})
	eventually(t, "sweeps work again", func() bool { r, err := leads.store.Invalidate(ctx, "*"); return err == nil && r.Complete })
	if err := leads.store.Ready(ctx); err != nil {
		t.Errorf("not ready after recovery: %v", err)
	}
}

func TestSweepSaysWhichNodeIsMissing(t *testing.T) {
	ctx := testContext(t)
	_, leads, victim := breakable(t, ctx, nil)
	for i := range 50 {
		if err := leads.Set(ctx, fmt.Sprint(i), lead{}); err != nil {
			t.Fatal(err)
		}
	}
	victim.Freeze()
	report, err := leads.store.Invalidate(ctx, "*")
	if !errors.Is(err, ErrIncomplete) || report.Complete || !strings.Contains(err.Error(), victim.Addr()) {
		t.Errorf("%+v, %v", report, err)
	}
	if report.Nodes[victim.Addr()].Error == "" {
		t.Errorf("the frozen node is missing or without its error: %+v", report.Nodes)
	}
	for addr, node := range report.Nodes { // a cluster that has seen the silence may refuse everywhere
		if node.Changed == 0 && node.Error == "" {
			t.Errorf("node %s: %+v", addr, node)
		}
	}
	victim.Thaw()
	eventually(t, "the rest is swept", func() bool { r, err := leads.store.Invalidate(ctx, "*"); return err == nil && r.Complete })
	if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("got %v", err)
	}
}

// A service that starts while Redis is down works from the origin, says so, and heals.
func TestRedisDownAtStart(t *testing.T) {
	ctx := testContext(t)
	cluster, err := rediscluster.Start(ctx, &rediscluster.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	node := cluster.Nodes()[0]
	node.Kill()
	rdb := redisclient.New(redisclient.Options(cluster.Addrs()...))
	defer rdb.Close()
	leads := Of[lead](newStore(t, rdb, nil), "lead")
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- leads.store.Run(running) }()
	if err := leads.store.Ready(ctx); err == nil || !strings.Contains(err.Error(), "misses until") {
		t.Errorf("Ready: %v", err)
	}
	l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
	wantScore(t, l, err, 1)
	if err := node.Start(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready", func() bool { return leads.store.Ready(ctx) == nil })
	l, err = leads.Load(ctx, "1", loads(lead{Score: 2}))
	wantScore(t, l, err, 2)
	l, err = leads.Get(ctx, "1")
	wantScore(t, l, err, 2)
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}
