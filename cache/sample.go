package cache

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/redisclient"
)

const (
	sampleEvery = 5 * time.Second
	sampleLease = 12 * time.Second
	// missedSamples is how often a master may be missed before its series go.
	missedSamples = 3
)

// sampler turns INFO of each master into series.
type sampler struct {
	store  *Store
	mu     sync.Mutex
	last   map[string]info
	missed map[string]int
}

// info is what counts of a node's INFO.
type info struct {
	runID     string
	policy    string
	used, max float64 // bytes; max is 0 when the node has no limit
	evicted   float64
}

func newSampler(s *Store) *sampler {
	return &sampler{store: s, last: map[string]info{}, missed: map[string]int{}}
}

// runSampler samples for all processes that share the cache, when it is this one's turn.
func (s *Store) runSampler(ctx context.Context) error {
	m := newSampler(s)
	task := "sample " + strings.TrimSuffix(s.opts.Prefix, ":")
	sampler, err := metrics.NewSampler("cache", task, m.sample, m.forgetAll, &metrics.SamplerOptions{
		Interval:   sampleEvery,
		Lease:      redisclient.NewLease(s.rdb, s.opts.Prefix+metaMark+"sampler", sampleLease),
		Failed:     func(err error) { s.in.failed(ctx, "sample", err) },
		Registerer: s.opts.Registerer,
	})
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	return sampler.Run(ctx)
}

// sample fails when no master answers. One that does not is missed for itself.
func (m *sampler) sample(ctx context.Context) error {
	var mu sync.Mutex
	answered := map[string]bool{}
	err := redisclient.EachMaster(ctx, m.store.rdb, func(ctx context.Context, node *redis.Client) error {
		ctx, cancel := context.WithTimeout(ctx, m.store.stepTimeout())
		defer cancel()
		text, err := node.Info(ctx).Result()
		if err != nil {
			return err
		}
		m.record(node.Options().Addr, parseInfo(text))
		mu.Lock()
		defer mu.Unlock()
		answered[node.Options().Addr] = true
		return nil
	})
	if err != nil && len(answered) == 0 {
		return err
	}
	if err != nil {
		m.store.in.failed(ctx, "sample", err)
	}
	m.forget(answered, err == nil)
	return nil
}

// forget drops the series of servers that have not answered: at once when those that have are all masters there are,
// and otherwise when they have been silent for too long.
func (m *sampler) forget(answered map[string]bool, all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for server := range m.last {
		if answered[server] {
			delete(m.missed, server)
			continue
		}
		if m.missed[server]++; all || m.missed[server] >= missedSamples {
			m.drop(server)
		}
	}
}

// forgetAll drops all series: what was evicted before the next sample is then not ours to count.
func (m *sampler) forgetAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for server := range m.last {
		m.drop(server)
	}
}

func (m *sampler) drop(server string) {
	delete(m.last, server)
	delete(m.missed, server)
	in := m.store.in
	in.memoryUsed.DeleteLabelValues(server)
	in.memoryMax.DeleteLabelValues(server)
	in.evicted.DeleteLabelValues(server)
	in.evicting.DeleteLabelValues(server)
	in.memoryPolicy.DeletePartialMatch(prometheus.Labels{"server": server})
}

func (m *sampler) record(server string, now info) {
	m.mu.Lock()
	was, known := m.last[server]
	m.last[server] = now
	m.mu.Unlock()
	in := m.store.in
	in.memoryUsed.WithLabelValues(server).Set(now.used)
	if now.max > 0 {
		in.memoryMax.WithLabelValues(server).Set(now.max)
	} else {
		in.memoryMax.DeleteLabelValues(server) // without a limit there is no utilisation, rather than one of 0
	}
	switch now.policy {
	case "unknown":
		in.evicting.DeleteLabelValues(server)
	case "noeviction":
		in.evicting.WithLabelValues(server).Set(0)
	default:
		in.evicting.WithLabelValues(server).Set(1)
	}
	if known && was.policy != now.policy {
		in.memoryPolicy.DeleteLabelValues(server, was.policy)
	}
	in.memoryPolicy.WithLabelValues(server, now.policy).Set(1)
	in.evicted.WithLabelValues(server).Add(evictions(was, now, known))
}

// evictions returns how many keys a node evicted between two samples. A restart or CONFIG RESETSTAT starts from 0 again;
// what came before the first sample is not ours to count.
func evictions(was, now info, known bool) float64 {
	switch {
	case !known:
		return 0
	case was.runID != now.runID, now.evicted < was.evicted:
		return now.evicted
	default:
		return now.evicted - was.evicted
	}
}

// policies are Redis's: a label has no other values.
var policies = []string{
	"noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-lrm", "allkeys-random",
	"volatile-lru", "volatile-lfu", "volatile-lrm", "volatile-random", "volatile-ttl",
}

func parseInfo(text string) info {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	number := func(name string) float64 {
		n, _ := strconv.ParseFloat(fields[name], 64)
		return n
	}
	policy := "unknown"
	if slices.Contains(policies, fields["maxmemory_policy"]) {
		policy = fields["maxmemory_policy"]
	}
	return info{
		runID:   fields["run_id"],
		policy:  policy,
		used:    max(0, number("used_memory")-number("mem_not_counted_for_evict")),
		max:     number("maxmemory"),
		evicted: number("evicted_keys"),
	}
}
