package metrics

import "time"

// Statistic says how a key metric's value is made of its series.
type Statistic int

const (
	// Quantile is the Param-quantile of a histogram over the window, of all instances together.
	Quantile Statistic = iota
	// Share is the part of events over the window whose Label is Value, or is not Value when Not is set.
	Share
	// OverPerMinute is how many observations a minute were above Param.
	OverPerMinute
	// Rate is a counter's increase per second, summed over the instances.
	Rate
	// RateOfOne is Rate for a counter that is the same number on every instance.
	RateOfOne
	// Largest is a gauge's largest value; where Label is set, of those whose Label is Value.
	Largest
	// LargestRatio is the largest ratio of the gauges Series and Of, taken on each instance.
	LargestRatio
	// GrowthPerDay is a gauge's slope over six hours, in units per day.
	GrowthPerDay
	// Age is how many seconds ago the largest value of a gauge of Unix times was.
	Age
)

// Unit is what a value counts.
type Unit string

// The units of key metrics.
const (
	Seconds   Unit = "seconds"
	Ratio     Unit = "ratio" // 1 is all of it
	PerSecond Unit = "per_second"
	PerMinute Unit = "per_minute"
	Jobs      Unit = "jobs"
	Callers   Unit = "callers"
	Bytes     Unit = "bytes"
	BytesADay Unit = "bytes_per_day"
	Flag      Unit = "flag" // 1 is yes, 0 is no
)

// KeyMetric is one row of the table from which rules, alerts and reports are rendered.
type KeyMetric struct {
	// ID names the metric in labels and reports.
	ID string
	// Title is for people.
	Title string
	// Unit is the unit of values and thresholds.
	Unit Unit
	// Record is the name of the recording rule, after the prefix scaleaware:. A 5m in it stands for the table's window.
	Record string
	// Alert is the name of the alerts. A row that has one can be given thresholds, even if it has none yet.
	Alert string

	// Statistic says how the value is made, of the following.
	Statistic Statistic
	// Series is what is observed, Of what LargestRatio divides it by.
	Series, Of Series
	// Param is the quantile or the bound that the Statistic needs.
	Param float64
	// Label, Value and Not select children of Series.
	Label, Value string
	// Not inverts the selection.
	Not bool
	// Among are the values of Label that a Share is a part of, Value being one of them. Empty means all.
	Among []string
	// Scope are the labels by which there is a value of its own.
	Scope []string

	// Op says on which side of the thresholds the trouble is.
	Op Op
	// Warning and Critical are the thresholds.
	Warning, Critical float64
	// WarningClear and CriticalClear are what a value must no longer be past for an alert that has fired to end: 0.7 for a
	// threshold of 0.8, so that one that moves around 0.8 is one alert. Zero means the threshold itself.
	WarningClear, CriticalClear float64
	// WarningFor and CriticalFor are how long a value must be past them. Zero means that there are none.
	WarningFor, CriticalFor time.Duration
	// KeepFiringFor is how long an alert that has fired goes on firing when the value is no longer past the threshold,
	// so that it does not flap. Zero means not at all.
	KeepFiringFor time.Duration
	// MinEvents is how many events the window must have for an alert: of a handful, the slowest is the p99. Zero means
	// that any number will do.
	MinEvents float64
	// Unless is the ID of another key metric of the same scope: where its value is above 0, this one does not alert.
	// Empty means that it always does.
	Unless string
	// Step is what the runbook says to do.
	Step string

	// Compat is a record by a name without the prefix, such as the one that the runbook's own rules use, with the value times
	// CompatFactor.
	Compat string
	// CompatFactor converts the unit.
	CompatFactor float64
}

const (
	long  = 5 * time.Minute
	short = 2 * time.Minute

	stepLoad  = "High Load Incident: ask /api/v1/performance/capacity/bottlenecks what limits; extend cache TTLs, pause low-priority jobs, add API instances; read-only mode as the last step."
	stepQuery = "Database Performance Issues: GET /api/v1/performance/database/slow-queries, cancel long-running queries, optimize the tables they read."
	stepPool  = "High Load Incident: raise the pool's size (POST /api/v1/performance/database/pool), then look for slow queries that hold connections."
	stepCache = "Cache Issues: GET /api/v1/performance/cache/hit-rate, then POST /api/v1/performance/cache/warm."
	stepStale = "Cache Issues: find what changes this cache's values without a Delete after the commit (the log's \"differs from its origin\"), and POST /api/v1/performance/cache/invalidate until it has one. A cache that lives by its TTL alone is stale by design: silence this alert for it, or give it a store without Options.Verify."
	stepRedis = "Cache Scaling: add nodes to the Redis Cluster or raise maxmemory; shorten TTLs of what is rarely read."
	stepQueue = "Queue Backlog: add workers; pause or drain queues that can wait (POST /api/v1/performance/jobs/{queue}/pause)."
	stepJobs  = "Queue Backlog: find why jobs fail, then POST /api/v1/performance/jobs/{queue}/retry-failed."
	stepBlind = "Monitoring: what this sampler measures is not known. Look for scaleaware_background_errors_total of the same package and task, and for its lines in the log."
	stepDisk  = "Database Partitioning: create the coming partitions and detach old ones before the disk is full."
)

// KeyMetrics returns the runbook's key metrics with its thresholds, in its order, and what is needed to trust them.
func KeyMetrics() Table {
	return Table{Rows: []KeyMetric{
		{
			ID: "api_latency_p95", Title: "API latency (p95)", Unit: Seconds, Record: "http_request_duration_seconds:p95_5m", Alert: "APILatencyP95High",
			Statistic: Quantile, Series: HTTPRequestDuration, Param: .95,
			Warning: .2, Critical: .5, WarningFor: long, CriticalFor: short, Step: stepLoad,
			Compat: "api_latency_p95", CompatFactor: 1000,
		},
		{
			ID: "api_latency_p99", Title: "API latency (p99)", Unit: Seconds, Record: "http_request_duration_seconds:p99_5m", Alert: "APILatencyP99High",
			Statistic: Quantile, Series: HTTPRequestDuration, Param: .99,
			Warning: .5, Critical: 1, WarningFor: long, CriticalFor: short, Step: stepLoad,
		},
		{
			ID: "api_error_rate", Title: "API error rate", Unit: Ratio, Record: "http_errors:ratio_rate5m", Alert: "APIErrorRateHigh",
			Statistic: Share, Series: HTTPRequestDuration, Label: "code", Value: "5xx",
			Warning: .001, Critical: .01, WarningFor: long, CriticalFor: short, Step: stepLoad,
		},
		{
			ID: "api_throughput", Title: "API throughput", Unit: PerSecond, Record: "http_requests:rate5m", Alert: "APIThroughputHigh",
			Statistic: Rate, Series: HTTPRequestDuration, Step: stepLoad,
		},
		{
			ID: "db_pool_utilization", Title: "Connection pool utilization", Unit: Ratio, Record: "db_pool_utilization:ratio", Alert: "DBPoolUtilizationHigh",
			Statistic: LargestRatio, Series: DBPoolAcquired, Of: DBPoolMax, Scope: []string{"pool"},
			Warning: .8, Critical: .9, WarningFor: long, CriticalFor: short, KeepFiringFor: short, Step: stepPool,
			Compat: "db_connection_pool_utilization", CompatFactor: 1,
		},
		{
			ID: "db_pool_waiters", Title: "Callers waiting for a connection", Unit: Callers, Record: "db_pool_waiters:avg5m", Alert: "DBPoolWaitersHigh",
			Statistic: Rate, Series: DBPoolAcquireWait, Scope: []string{"pool"}, Step: stepPool, // seconds waited per second: Little's law
		},
		{
			ID: "db_query_time", Title: "Query time (p95)", Unit: Seconds, Record: "db_query_duration_seconds:p95_5m", Alert: "DBQueryTimeHigh",
			Statistic: Quantile, Series: DBQueryDuration, Param: .95,
			Warning: .1, Critical: .5, WarningFor: long, CriticalFor: short, Step: stepQuery,
		},
		{
			ID: "db_slow_queries", Title: "Slow queries (over 100 ms)", Unit: PerMinute, Record: "db_slow_queries:per_minute", Alert: "DBSlowQueries",
			Statistic: OverPerMinute, Series: DBQueryDuration, Param: .1,
			Warning: 10, Critical: 50, WarningFor: long, CriticalFor: short, Step: stepQuery,
		},
		{
			ID: "db_size", Title: "Database size", Unit: Bytes, Record: "db_size_bytes:max", Alert: "DBSizeHigh",
			Statistic: Largest, Series: DBSize, Scope: []string{"datname"}, Step: stepDisk,
		},
		{
			ID: "db_size_growth", Title: "Database growth", Unit: BytesADay, Record: "db_size_bytes:growth_per_day", Alert: "DBGrowthHigh",
			Statistic: GrowthPerDay, Series: DBSize, Scope: []string{"datname"}, Step: stepDisk,
		},
		{
			ID: "cache_hit_rate", Title: "Cache hit rate", Unit: Ratio, Record: "cache_hit:ratio_rate5m", Alert: "CacheHitRateLow",
			Statistic: Share, Series: CacheRequests, Label: "result", Value: "miss", Not: true,
			Op: Below, Warning: .8, Critical: .6, WarningFor: 10 * time.Minute, CriticalFor: long, Step: stepCache,
			Compat: "cache_hit_rate", CompatFactor: 1,
		},
		{
			// Each such hit was told something that is no longer true, and no delete was coming: the bounds are those of failed
			// jobs. They last as the hit rate's do, longer than a single burst stays in the window, and of the fewest
			// comparisons that count one stale is 1 %, which is still fine.
			ID: "cache_stale_ratio", Title: "Stale cache hits", Unit: Ratio, Record: "cache_stale:ratio_rate5m", Alert: "CacheStaleRatioHigh",
			Statistic: Share, Series: CacheVerified, Label: "outcome", Value: "stale", Among: []string{"same", "changed", "stale"}, Scope: []string{"cache"},
			Warning: .01, Critical: .05, WarningFor: 10 * time.Minute, CriticalFor: long, MinEvents: 100, Step: stepStale,
			Compat: "cache_stale_ratio", CompatFactor: 1,
		},
		{
			ID: "cache_memory", Title: "Cache memory", Unit: Ratio, Record: "cache_memory:ratio", Alert: "CacheMemoryHigh",
			Statistic: LargestRatio, Series: CacheMemoryUsed, Of: CacheMemoryMax, Scope: []string{"server"},
			Warning: .8, Critical: .9, WarningFor: long, CriticalFor: short, KeepFiringFor: short, Step: stepRedis,
			Unless: "cache_evicting", // full is where such a cache should be, and cache_evictions watches it
		},
		{
			ID: "cache_evicting", Title: "Cache evicts when full", Unit: Flag, Record: "cache_evicting",
			Statistic: Largest, Series: CacheEvicting, Scope: []string{"server"},
		},
		{
			ID: "cache_evictions", Title: "Cache evictions", Unit: PerSecond, Record: "cache_evictions:rate5m", Alert: "CacheEvictionsHigh",
			Statistic: RateOfOne, Series: CacheEvicted, Scope: []string{"server"},
			Warning: 10, Critical: 50, WarningFor: long, CriticalFor: short, Step: stepRedis,
		},
		{
			ID: "queue_depth", Title: "Queue depth", Unit: Jobs, Record: "queue_depth", Alert: "QueueDepthHigh",
			Statistic: Largest, Series: QueueTasks, Label: "state", Value: "pending", Scope: []string{"queue"},
			Warning: 1000, Critical: 5000, WarningFor: long, CriticalFor: short, KeepFiringFor: short, Step: stepQueue,
		},
		{
			ID: "job_time", Title: "Job processing time (p95)", Unit: Seconds, Record: "job_duration_seconds:p95_5m", Alert: "JobTimeHigh",
			Statistic: Quantile, Series: JobDuration, Param: .95, Scope: []string{"queue"},
			Warning: 30, Critical: 60, WarningFor: long, CriticalFor: short, Step: stepQueue,
		},
		{
			ID: "job_failed_rate", Title: "Failed jobs", Unit: Ratio, Record: "job_failed:ratio_rate5m", Alert: "JobFailedRateHigh",
			Statistic: Share, Series: JobDuration, Label: "outcome", Value: "failed", Scope: []string{"queue"},
			Warning: .01, Critical: .05, WarningFor: long, CriticalFor: short, Step: stepJobs,
		},
		{
			ID: "sampler_age", Title: "Time since a sampler succeeded", Unit: Seconds, Record: "sampler_age_seconds", Alert: "SamplerStopped",
			Statistic: Age, Series: SamplerSuccess, Scope: []string{"package", "task"},
			Warning: 180, Critical: 600, WarningFor: short, CriticalFor: short, Step: stepBlind,
		},
	}}
}
