package metrics

import (
	"strings"

	dto "github.com/prometheus/client_model/go"
)

// Limits are resources' limits that nothing measures.
type Limits struct {
	// HTTPRequests is how many requests an instance serves at once. Zero means that there is no limit.
	HTTPRequests int
	// Goroutines is how many an instance should have at most. Zero means that there is no limit.
	Goroutines int
	// Memory is in bytes. Zero means GOMEMLIMIT, else the control group's limit, else the machine's memory.
	Memory int64
}

// resourceKind is a row of the table of resources, in the order in which equals are listed.
type resourceKind struct {
	id, title, unit string
	labels          []string
	shared          bool    // all instances see the same one; else each has its own, and they add up
	fixed           bool    // it is filled, not worked with, so that a ceiling in requests means nothing
	warning         float64 // of utilization
	critical        float64
	step            string
}

const (
	resourceCPU         = "cpu"
	resourceMemory      = "memory"
	resourceFiles       = "file_descriptors"
	resourceGoroutines  = "goroutines"
	resourceGC          = "gc"
	resourceHTTP        = "http_requests"
	resourceDBPool      = "db_pool"
	resourceRedisPool   = "redis_pool"
	resourceRedisMemory = "cache_memory"
	resourceWorkers     = "workers"
	resourceQueue       = "queue"

	stepCPU        = "Vertical Scaling: above 70 % consistently, give it more cores or add API instances."
	stepMemory     = "Vertical Scaling: above 80 % consistently, give it more memory; where it only ever grows, look for a leak first."
	stepFiles      = "Vertical Scaling: raise the limit of open files (ulimit -n, LimitNOFILE); where it only ever grows, look for connections that are not closed."
	stepGoroutines = "High Load Incident: look for what they wait for (/debug/pprof/goroutine); where it only ever grows, they leak."
	stepGC         = "Vertical Scaling: give it more memory (GOMEMLIMIT, GOGC), so that the garbage collector runs more rarely."
	stepHTTP       = "Horizontal Scaling: add API instances."
	stepRedisPool  = "Cache Scaling: raise the Redis client's PoolSize, then look for slow commands that hold connections."
	stepWorkers    = "Queue Backlog: add workers or raise their concurrency." // #nosec G101 -- advice, and no secret
)

// A pool and a cache's memory have the key metric's thresholds, the others the runbook's "consistently above".
var resourceKinds = []resourceKind{
	{id: resourceCPU, title: "CPU", unit: "cores", warning: .7, critical: .9, step: stepCPU},
	{id: resourceMemory, title: "Memory", unit: "bytes", fixed: true, warning: .8, critical: .9, step: stepMemory},
	{id: resourceGC, title: "Garbage collection", unit: "cores", warning: .5, critical: .8, step: stepGC},
	{id: resourceHTTP, title: "HTTP requests being served", unit: "requests", warning: .8, critical: .9, step: stepHTTP},
	{id: resourceDBPool, title: "Connection pool", unit: "connections", labels: []string{"pool", "role"}, warning: .8, critical: .9, step: stepPool},
	{id: resourceRedisPool, title: "Redis connection pool", unit: "connections", labels: []string{"client", "server"}, warning: .8, critical: .9, step: stepRedisPool},
	{id: resourceWorkers, title: "Workers", unit: "slots", warning: .9, critical: .98, step: stepWorkers},
	{id: resourceFiles, title: "File descriptors", unit: "descriptors", warning: .8, critical: .9, step: stepFiles},
	{id: resourceGoroutines, title: "Goroutines", unit: "goroutines", warning: .8, critical: .9, step: stepGoroutines},
	{id: resourceRedisMemory, title: "Cache memory", unit: "bytes", labels: []string{"server"}, shared: true, fixed: true, warning: .8, critical: .9, step: stepRedis},
	{id: resourceQueue, title: "Queue", unit: "jobs", labels: []string{"queue"}, shared: true, fixed: true, warning: .2, critical: 1, step: stepQueue},
}

// families reads the resources that the packages measure, seconds after the last time. worked are seconds of jobs per second.
func (e *examiner) families(by map[string]*dto.MetricFamily, seconds, worked float64, put func(kind, scope string, u usage)) {
	if f := by[HTTPActiveRequests.Name]; f != nil {
		most := float64(unknown)
		if e.limits.HTTPRequests > 0 {
			most = float64(e.limits.HTTPRequests)
		}
		put(resourceHTTP, "", usage{gaugeOf(f.GetMetric()[0]), most, unknown, unknown})
	}
	pools := gauges(by, DBPoolMax, "pool", "role")
	waiters := gauges(by, DBPoolWaiters, "pool", "role")
	refused := sums(by, DBPoolFailures, counterOf, "pool", "role")
	for scope, n := range gauges(by, DBPoolAcquired, "pool", "role") {
		put(resourceDBPool, scope, usage{n, known(pools, scope), known(waiters, scope), e.failures(resourceDBPool, scope, refused, seconds)})
	}
	connections := gauges(by, RedisPoolMax, "client", "server")
	callers := gauges(by, RedisPoolWaiters, "client", "server")
	gaveUp := sums(by, RedisPoolTimeouts, counterOf, "client", "server")
	for scope, n := range gauges(by, RedisPoolUsed, "client", "server") {
		put(resourceRedisPool, scope, usage{n, known(connections, scope), known(callers, scope), e.failures(resourceRedisPool, scope, gaveUp, seconds)})
	}
	memory := gauges(by, CacheMemoryMax, "server")
	for server, n := range gauges(by, CacheMemoryUsed, "server") {
		put(resourceRedisMemory, server, usage{n, known(memory, server), unknown, unknown})
	}
	pending := 0.0
	for scope, n := range gauges(by, QueueTasks, "queue", "state") {
		queue, state, _ := strings.Cut(scope, "\x1f")
		if state != "pending" {
			continue
		}
		pending += n
		put(resourceQueue, queue, usage{n, e.blamed.criticalOf("queue_depth"), unknown, unknown})
	}
	if slots := gauges(by, QueueWorkerSlots); len(slots) > 0 && worked >= 0 {
		// Seconds worked per second are slots that are busy: Little's law.
		put(resourceWorkers, "", usage{min(worked, slots[""]), slots[""], pending, unknown})
	}
}

// failures are a resource's per second, of a counter that is there from the beginning.
func (e *examiner) failures(kind, scope string, totals map[string]float64, seconds float64) float64 {
	total, ok := totals[scope]
	if !ok {
		return unknown
	}
	return e.rate(resourceKey(kind, scope), total, seconds)
}

func gaugeOf(child *dto.Metric) float64 { return child.GetGauge().GetValue() }

func counterOf(child *dto.Metric) float64 { return child.GetCounter().GetValue() }

func gauges(by map[string]*dto.MetricFamily, s Series, labels ...string) map[string]float64 {
	return sums(by, s, gaugeOf, labels...)
}

// sums adds up a series by labels. Values that are no number or below zero are left out.
func sums(by map[string]*dto.MetricFamily, s Series, of func(*dto.Metric) float64, labels ...string) map[string]float64 {
	out := map[string]float64{}
	for _, child := range by[s.Name].GetMetric() {
		if v := of(child); v >= 0 {
			out[labelsJoined(child, labels)] += v
		}
	}
	return out
}

func labelsJoined(child *dto.Metric, labels []string) string {
	values := make([]string, len(labels))
	for i, name := range labels {
		values[i] = labelOf(child, name)
	}
	return strings.Join(values, "\x1f")
}

// known is unknown where there is none, or a limit of 0, which is no limit.
func known(values map[string]float64, scope string) float64 {
	if v, ok := values[scope]; ok {
		return v
	}
	return unknown
}
