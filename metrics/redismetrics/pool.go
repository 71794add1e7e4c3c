package redismetrics

import (
	"maps"
	"sync"
	"weak"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/metrics"
)

// pools collects the connection pools of a client's nodes. It implements prometheus.Collector.
type pools struct {
	used, most, waiters, waited, timeouts *prometheus.Desc

	only *redis.Client // where there are no nodes

	mu    sync.Mutex
	nodes map[string]weak.Pointer[redis.Client] // by address; the client lets go those that have left
}

func newPools(name string) *pools {
	client := prometheus.Labels{"client": name}
	return &pools{
		used: metrics.RedisPoolUsed.Desc(client), most: metrics.RedisPoolMax.Desc(client), waiters: metrics.RedisPoolWaiters.Desc(client),
		waited: metrics.RedisPoolWait.Desc(client), timeouts: metrics.RedisPoolTimeouts.Desc(client),
		nodes: map[string]weak.Pointer[redis.Client]{},
	}
}

func (p *pools) add(node *redis.Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes[node.Options().Addr] = weak.Make(node)
}

// Describe implements prometheus.Collector.
func (p *pools) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{p.used, p.most, p.waiters, p.waited, p.timeouts} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (p *pools) Collect(to chan<- prometheus.Metric) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.nodes, func(_ string, node weak.Pointer[redis.Client]) bool { return node.Value() == nil })
	for server, known := range p.nodes {
		node := known.Value()
		if node == nil {
			continue
		}
		s, o := node.PoolStats(), node.Options()
		if len(p.nodes) > 1 && s.TotalConns == 0 && s.PendingRequests == 0 {
			continue // a node that has left the cluster, or is not used
		}
		most := o.PoolSize // also where MaxActiveConns is larger: so many callers have one at a time
		if o.MaxActiveConns > 0 {
			most = min(most, o.MaxActiveConns)
		}
		// The two numbers are read one after the other.
		used := max(0, int64(s.TotalConns)-int64(s.IdleConns))
		for _, g := range []struct {
			desc  *prometheus.Desc
			kind  prometheus.ValueType
			value float64
		}{
			{p.used, prometheus.GaugeValue, float64(used)},
			{p.most, prometheus.GaugeValue, float64(most)},
			{p.waiters, prometheus.GaugeValue, float64(s.PendingRequests)},
			{p.waited, prometheus.CounterValue, float64(s.WaitDurationNs) / 1e9},
			{p.timeouts, prometheus.CounterValue, float64(s.Timeouts)},
		} {
			to <- prometheus.MustNewConstMetric(g.desc, g.kind, g.value, server)
		}
	}
}
