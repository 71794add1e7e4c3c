package metrics

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// fixture is a registry with the series that the tests move.
type fixture struct {
	reg      *prometheus.Registry
	http     *prometheus.HistogramVec
	jobs     *prometheus.HistogramVec
	queries  *prometheus.HistogramVec
	lookups  *prometheus.CounterVec
	verified *prometheus.CounterVec
	evicted  *prometheus.CounterVec
	acquired *prometheus.GaugeVec
	limit    *prometheus.GaugeVec
	tasks    *prometheus.GaugeVec
	slots    *prometheus.GaugeVec
	size     *prometheus.GaugeVec
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{reg: prometheus.NewRegistry()}
	f.http = must(NewHistogram(f.reg, HTTPRequestDuration))
	f.jobs = must(NewHistogram(f.reg, JobDuration))
	f.queries = must(NewHistogram(f.reg, DBQueryDuration))
	f.lookups = must(NewCounter(f.reg, CacheRequests))
	f.verified = must(NewCounter(f.reg, CacheVerified))
	f.evicted = must(NewCounter(f.reg, CacheEvicted))
	f.acquired = must(NewGauge(f.reg, DBPoolAcquired))
	f.limit = must(NewGauge(f.reg, DBPoolMax))
	f.tasks = must(NewGauge(f.reg, QueueTasks))
	f.slots = must(NewGauge(f.reg, QueueWorkerSlots))
	f.size = must(NewGauge(f.reg, DBSize))
	return f
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (f *fixture) requests(n int, seconds float64, code string) {
	for range n {
		f.http.WithLabelValues("/leads", "GET", code).Observe(seconds)
	}
}

func (f *fixture) collect(t testing.TB, c *collector) points {
	t.Helper()
	families, err := f.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return c.collect(families)
}

func TestCollectCountsFromItsBeginning(t *testing.T) {
	f := newFixture(t)
	c := newCollector(KeyMetrics().Rows)
	f.requests(1000, .3, "2xx") // before: not ours to report
	f.evicted.WithLabelValues("r1").Add(1e6)
	p := f.collect(t, c)
	if diff := cmp.Diff([]float64{0, 0}, p["api_error_rate"][""]); diff != "" {
		t.Errorf("at first: %s", diff)
	}
	f.requests(3, .3, "2xx")
	f.requests(1, .3, "5xx") // a child that begins now counts from zero
	f.evicted.WithLabelValues("r1").Add(7)
	f.evicted.WithLabelValues("r2").Add(1e6) // one that mirrors a server does not
	p = f.collect(t, c)
	if diff := cmp.Diff([]float64{1, 3}, p["api_error_rate"][""]); diff != "" {
		t.Errorf("errors and other requests: %s", diff)
	}
	if diff := cmp.Diff(map[string][]float64{"r1": {1e6 + 7}, "r2": {1e6}}, p["cache_evictions"]); diff != "" {
		t.Errorf("evictions: %s", diff)
	}
	buckets := p["api_latency_p95"][""]
	if buckets[7] != 0 || buckets[8] != 4 || buckets[len(buckets)-1] != 4 {
		t.Errorf("buckets up to 0.2, 0.3 and all: %v %v %v, want 0 4 4", buckets[7], buckets[8], buckets[len(buckets)-1])
	}
}

// What could not be compared is neither stale nor not, and a cache of which nothing was compared has no ratio.
func TestCollectLeavesOutWhatWasNotCompared(t *testing.T) {
	f := newFixture(t)
	c := newCollector(KeyMetrics().Rows)
	f.collect(t, c)
	for outcome, n := range map[string]float64{"same": 5, "changed": 2, "stale": 3, "skipped": 100, "failed": 1000} {
		f.verified.WithLabelValues("lead", outcome).Add(n)
	}
	f.verified.WithLabelValues("busy", "skipped").Add(100)
	if diff := cmp.Diff(map[string][]float64{"lead": {3, 7}}, f.collect(t, c)["cache_stale_ratio"]); diff != "" {
		t.Errorf("stale and other comparisons: %s", diff)
	}
}

func TestCollectSurvivesCountersThatDisappear(t *testing.T) {
	f := newFixture(t)
	c := newCollector(KeyMetrics().Rows)
	f.collect(t, c)
	f.requests(10, .01, "2xx")
	f.requests(10, .01, "5xx")
	f.collect(t, c)
	f.http.DeleteLabelValues("/leads", "GET", "2xx")
	if got := f.collect(t, c)["api_throughput"][""][0]; got != 20 {
		t.Errorf("after a child was deleted %v requests were counted, want 20 still", got)
	}
	f.requests(4, .01, "2xx") // began again: 4 is less than 10
	if got := f.collect(t, c)["api_throughput"][""][0]; got != 24 {
		t.Errorf("after it began again %v requests were counted, want 24", got)
	}
}

func TestCollectGauges(t *testing.T) {
	f := newFixture(t)
	for role, acquired := range map[string]float64{"primary": 9, "replica": 2} {
		f.acquired.WithLabelValues("app", role).Set(acquired)
		f.limit.WithLabelValues("app", role).Set(10)
	}
	f.acquired.WithLabelValues("unlimited", "primary").Set(9)
	f.limit.WithLabelValues("unlimited", "primary").Set(0)
	f.tasks.WithLabelValues("normal", "pending").Set(5)
	f.tasks.WithLabelValues("normal", "completed").Set(5000)
	p := f.collect(t, newCollector(KeyMetrics().Rows))
	if diff := cmp.Diff(map[string][]float64{"app": {.9}}, p["db_pool_utilization"]); diff != "" {
		t.Errorf("pools: %s", diff)
	}
	if diff := cmp.Diff(map[string][]float64{"normal": {5}}, p["queue_depth"]); diff != "" {
		t.Errorf("queues: %s", diff)
	}
}
