package cache

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// sampler turns INFO of each master into series.
type sampler struct {
	store *Store
	mu    sync.Mutex
	last  map[string]info
}

// info is what counts of a node's INFO.
type info struct {
	runID     string
	used, max float64 // bytes; max is 0 when the node has no limit
	evicted   float64
	policy    string
}

func newSampler(s *Store) *sampler {
	m := &sampler{store: s, last: map[string]info{}}
	m.succeeded() // until it has, its age is told from its start
	return m
}

func (m *sampler) succeeded() {
	m.store.in.sampled.WithLabelValues("cache", "sample").SetToCurrentTime()
}

func (m *sampler) sample(ctx context.Context) error {
	var mu sync.Mutex
	masters := map[string]bool{}
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
		masters[node.Options().Addr] = true
		return nil
	})
	if err == nil {
		m.forget(masters)
		m.succeeded()
	}
	return err
}

// forget drops the series of servers that are no masters any more.
func (m *sampler) forget(masters map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for server := range m.last {
		if !masters[server] {
			delete(m.last, server)
			m.store.in.memoryUsed.DeleteLabelValues(server)
			m.store.in.memoryMax.DeleteLabelValues(server)
			m.store.in.evicting.DeleteLabelValues(server)
		}
	}
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
	case "": // not told
		in.evicting.DeleteLabelValues(server)
	case "noeviction":
		in.evicting.WithLabelValues(server).Set(0)
	default:
		in.evicting.WithLabelValues(server).Set(1)
	}
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
	return info{
		runID:   fields["run_id"],
		used:    max(0, number("used_memory")-number("mem_not_counted_for_evict")),
		max:     number("maxmemory"),
		evicted: number("evicted_keys"),
		policy:  fields["maxmemory_policy"],
	}
}
