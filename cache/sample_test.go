package cache

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/metrics"
)

func TestParseInfo(t *testing.T) {
	got := parseInfo("# Server\r\nrun_id:abc\r\n# Memory\r\nused_memory:1000\r\nmem_not_counted_for_evict:100\r\nmaxmemory:5000\r\nmaxmemory_policy:allkeys-lru\r\n# Stats\r\nevicted_keys:7\r\n")
	if want := (info{runID: "abc", policy: "allkeys-lru", used: 900, max: 5000, evicted: 7}); got != want {
		t.Errorf("got %+v", got)
	}
}

func TestEvictions(t *testing.T) {
	for _, c := range []struct {
		name     string
		was, now info
		known    bool
		want     float64
	}{
		{"first sample", info{}, info{runID: "a", evicted: 100}, false, 0},
		{"grew", info{runID: "a", evicted: 100}, info{runID: "a", evicted: 130}, true, 30},
		{"restarted", info{runID: "a", evicted: 100}, info{runID: "b", evicted: 130}, true, 130},
		{"reset", info{runID: "a", evicted: 100}, info{runID: "a", evicted: 5}, true, 5},
	} {
		if got := evictions(c.was, c.now, c.known); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestRecordTellsWhetherAServerEvicts(t *testing.T) {
	in, err := newInstruments(Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := newSampler(&Store{in: in})
	for policy, want := range map[string]float64{"noeviction": 0, "allkeys-lru": 1, "volatile-ttl": 1} {
		m.record("a", info{policy: policy})
		if got := testutil.ToFloat64(m.store.in.evicting); got != want {
			t.Errorf("%s: %v, want %v", policy, got, want)
		}
	}
	m.record("a", info{policy: "unknown"})
	if n := testutil.CollectAndCount(m.store.in.evicting); n != 0 {
		t.Error("a policy that is not told was made up")
	}
}

func TestSampleReachesEveryMaster(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		if err := newSampler(s).sample(ctx); err != nil {
			t.Fatal(err)
		}
		l, _, err := s.layout(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if n := testutil.CollectAndCount(s.in.memoryUsed); n != len(l) {
			t.Errorf("%d servers sampled of %d", n, len(l))
		}
		if n := testutil.CollectAndCount(s.in.evicting); n != len(l) {
			t.Errorf("the policy of %d servers is known, of %d", n, len(l))
		}
		if n := testutil.CollectAndCount(s.in.memoryMax); n != 0 {
			t.Errorf("a limit was made up for %d servers that have none", n)
		}
	})
}

// names are those of the series that a registry exports.
func names(t *testing.T, reg *prometheus.Registry) []string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range families {
		all = append(all, f.GetName())
	}
	return all
}

func TestMemoryIsAbsentWithoutRedis(t *testing.T) {
	c, err := rediscluster.Start(t.Context(), &rediscluster.Options{Nodes: 1}) // it is stopped
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Nodes()[0].SetMaxMemory(t.Context(), 100<<20, "noeviction"); err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	s := newStore(t, client(t, c), func(o *Options) { o.Registerer, o.RedisTimeout = reg, 100*time.Millisecond })
	m := newSampler(s)
	if err := m.sample(testContext(t)); err != nil {
		t.Fatal(err)
	}
	sampled := []string{metrics.CacheEvicting.Name, metrics.CacheMemoryUsed.Name, metrics.CacheMemoryMax.Name, metrics.CacheEvicted.Name, metrics.CacheMemoryPolicy.Name}
	for _, name := range sampled {
		if !slices.Contains(names(t, reg), name) {
			t.Errorf("%s is missing", name)
		}
	}
	if v := testutil.ToFloat64(s.in.memoryPolicy.WithLabelValues(c.Addrs()[0], "noeviction")); v != 1 {
		t.Errorf("the policy is %v", v)
	}
	c.Nodes()[0].Kill()
	if err := m.sample(testContext(t)); err == nil {
		t.Error("a stopped server was sampled")
	}
	m.forgetAll()
	for _, name := range sampled {
		if slices.Contains(names(t, reg), name) {
			t.Errorf("%s is still there", name)
		}
	}
}

// One master that is silent is missed for itself; one that is no master any more goes at once.
func TestSilentMastersAreForgotten(t *testing.T) {
	s := newStore(t, client(t, one.Get(t)), nil)
	m := newSampler(s)
	m.record("a:1", info{used: 1, policy: "noeviction"})
	m.record("b:1", info{used: 1, policy: "allkeys-lru"})
	count := func() int { return testutil.CollectAndCount(s.in.memoryUsed) }
	for miss := 1; miss <= missedSamples; miss++ {
		m.forget(map[string]bool{"a:1": true}, false)
		if want := 2 - miss/missedSamples; count() != want {
			t.Errorf("%d servers after %d misses, want %d", count(), miss, want)
		}
	}
	m.record("b:1", info{used: 1, policy: "allkeys-lru"})
	m.record("b:1", info{used: 1, policy: "noeviction"})
	if n := testutil.CollectAndCount(s.in.memoryPolicy); n != 2 {
		t.Errorf("%d policies of two servers", n)
	}
	m.forget(map[string]bool{"a:1": true}, true)
	if count() != 1 || testutil.CollectAndCount(s.in.memoryPolicy) != 1 {
		t.Error("a server that is no master is still there")
	}
}

// A master that hangs takes nothing from what is known of the others, and goes when it has been missed for too long.
func TestSampleBesideAMasterThatHangs(t *testing.T) {
	ctx := testContext(t)
	var log syncBuffer
	s, victim, other := oneHangs(t, ctx, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	m := newSampler(s)
	sample := func(want int) {
		t.Helper()
		if err := m.sample(ctx); err != nil || ctx.Err() != nil {
			t.Fatal(err, ctx.Err())
		}
		if n := testutil.CollectAndCount(s.in.memoryUsed); n != want {
			t.Errorf("%d servers, want %d", n, want)
		}
	}
	sample(3)
	victim.Freeze()
	for miss := 1; miss <= missedSamples; miss++ {
		limit := int64(miss) * 100 << 20
		if err := other.SetMaxMemory(ctx, limit, "noeviction"); err != nil {
			t.Fatal(err)
		}
		sample(3 - miss/missedSamples)
		if got := testutil.ToFloat64(s.in.memoryMax.WithLabelValues(other.Addr())); got != float64(limit) {
			t.Errorf("miss %d: the limit of another master is %v, want %d", miss, got, limit)
		}
		if got := testutil.ToFloat64(s.in.background.WithLabelValues("cache", "sample")); got != float64(miss) || !strings.Contains(log.String(), "master "+victim.Addr()+": ") {
			t.Errorf("%v failures are counted after %d, and logged:\n%s", got, miss, log.String())
		}
	}
	victim.Thaw()
	sample(3)
}

func TestOneProcessSamples(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, cancel := context.WithCancel(testContext(t))
		prefix, regs, stops := newPrefix(), [2]*prometheus.Registry{}, [2]func(){}
		for i := range regs {
			regs[i] = prometheus.NewRegistry()
			s := newStore(t, rdb, func(o *Options) { o.Prefix, o.Registerer = prefix, regs[i] })
			own, stop := context.WithCancel(ctx)
			done := make(chan error, 1)
			go func() { done <- s.runSampler(own) }()
			stops[i] = sync.OnceFunc(func() {
				stop()
				if err := <-done; err != nil {
					t.Errorf("runSampler = %v", err)
				}
			})
			defer stops[i]()
			if i == 0 {
				eventually(t, "the first samples", func() bool { return slices.Contains(names(t, regs[0]), metrics.CacheMemoryUsed.Name) })
			}
		}
		defer cancel()
		stops[0]()
		if slices.Contains(names(t, regs[0]), metrics.CacheMemoryUsed.Name) {
			t.Error("the first shows old numbers after its end")
		}
		eventually(t, "the second takes over", func() bool { return slices.Contains(names(t, regs[1]), metrics.SamplerSuccess.Name) })
	})
}
