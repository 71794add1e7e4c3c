package cache

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
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
		l, err := s.layout(ctx)
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
