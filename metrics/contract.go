package metrics

// Kind is a Prometheus metric type.
type Kind int

const (
	// Counter only goes up.
	Counter Kind = iota
	// Gauge goes up and down.
	Gauge
	// Histogram counts observations by bucket.
	Histogram
)

// Series is one row of the contract: everything that Prometheus knows of a metric. No other place in the module
// types a metric's name.
type Series struct {
	// Name follows Prometheus's conventions, with the unit as suffix.
	Name string
	// Kind is the metric's type.
	Kind Kind
	// Labels are the label names, in the order in which values are given.
	Labels []string
	// Buckets are a histogram's upper bounds. Every latency threshold is one of them, with a finite one above.
	Buckets []float64
	// Help is one line for people.
	Help string
}

var (
	httpBuckets = []float64{.005, .01, .025, .05, .075, .1, .15, .2, .3, .5, .75, 1, 2.5, 5, 10}
	dbBuckets   = []float64{.001, .005, .01, .05, .1, .25, .5, 1, 5, 10}
	jobBuckets  = []float64{.05, .25, 1, 5, 10, 30, 60, 120, 300, 600}
)

// The HTTP series. Names equal what OpenTelemetry's http.server.request.duration becomes in Prometheus.
var (
	HTTPRequestDuration = Series{"http_server_request_duration_seconds", Histogram, []string{"route", "method", "code"}, httpBuckets, "Duration of HTTP requests by route pattern, method and class of status code."}
	HTTPActiveRequests  = Series{"http_server_active_requests", Gauge, nil, nil, "HTTP requests being served now."}
	HTTPRouteOverflow   = Series{"http_server_route_overflow_total", Counter, nil, nil, "Requests counted under _OTHER because the limit of routes was reached."}
)

// The database series. db is the name given in dbsplit.Options.
var (
	DBPoolAcquired    = Series{"db_pool_acquired_connections", Gauge, []string{"pool", "role"}, nil, "Connections of a pool in use, averaged over the time since the last sample, a second or so."}
	DBPoolMax         = Series{"db_pool_max_connections", Gauge, []string{"pool", "role"}, nil, "Most connections that a pool may open."}
	DBPoolWaiters     = Series{"db_pool_waiters", Gauge, []string{"pool", "role"}, nil, "Callers waiting for a connection now."}
	DBPoolAcquireWait = Series{"db_pool_acquire_wait_seconds_total", Counter, []string{"pool", "role"}, nil, "Time that callers have waited for a connection."}
	DBPoolAcquireTime = Series{"db_pool_acquire_duration_seconds", Histogram, []string{"pool", "role"}, dbBuckets, "Time from asking for a connection to having one, or to giving up."}
	DBPoolFailures    = Series{"db_pool_acquire_failures_total", Counter, []string{"pool", "role", "reason"}, nil, "Callers that got no connection by reason: timeout, cancelled while they waited, or failed. Those that had given up before they asked are not counted."}
	DBFleetMax        = Series{"db_fleet_max_connections", Gauge, []string{"db", "node"}, nil, "Most connections that all instances together may open to a node, by the number of instances that it sees."}
	DBServerMax       = Series{"db_server_max_connections", Gauge, []string{"db", "node"}, nil, "Connections that a node takes from ordinary roles."}
	DBQueryDuration   = Series{"db_query_duration_seconds", Histogram, []string{"pool", "operation"}, dbBuckets, "Duration of queries until their rows are closed, by operation name, never by SQL text."}
	DBReads           = Series{"db_reads_total", Counter, []string{"db", "node", "role", "reason"}, nil, "Reads by the node and role that served them, and why it was chosen."}
	DBMisroutes       = Series{"db_misroutes_total", Counter, []string{"db", "operation"}, nil, "Statements sent through Read that tried to write, and were refused, by operation name: what to send through the DB instead."}
	DBHedgedReads     = Series{"db_hedged_reads_total", Counter, []string{"db", "outcome"}, nil, "Reads with Hedge that were not answered in time, by outcome: won or lost by the second node, or failed on both, or not sent twice, over-budget or as no-node qualified. An error of the statement is an answer; reads whose callers have gone are not counted."}
	DBShadowReads     = Series{"db_shadow_reads_total", Counter, []string{"db", "outcome"}, nil, "Reads with Shadow that were to be compared with another node's answer, by outcome: same, different, error of that node, or skipped."}
	DBReplicaStale    = Series{"db_replica_staleness_seconds", Gauge, []string{"db", "node"}, nil, "Upper bound of a replica's staleness."}
	DBNodeUp          = Series{"db_node_up", Gauge, []string{"db", "node", "role"}, nil, "1 when the node answered the monitor's last probe in that role."}
	DBTokens          = Series{"db_tokens_total", Counter, []string{"db", "outcome"}, nil, "Consistency tokens captured and obeyed, by outcome."}
	DBSize            = Series{"db_size_bytes", Gauge, []string{"datname"}, nil, "Size of a database on disk."}
)

// The cache series. cache is the view's name; server is a Redis node's address.
var (
	CacheRequests      = Series{"cache_requests_total", Counter, []string{"cache", "result"}, nil, "Cache look-ups by result: l1 (found in the process), l2 (found in Redis), stale (found past its TTL, and served), negative (known to have no value) or miss."}
	CacheLoads         = Series{"cache_loads_total", Counter, []string{"cache", "outcome"}, nil, "Loader runs by outcome."}
	CacheFills         = Series{"cache_fills_total", Counter, []string{"cache", "outcome"}, nil, "Values brought from the origin, by what became of storing them: stored, fenced by an invalidation, older than what is there, unleased, oversize or failed."}
	CacheWaited        = Series{"cache_waits_total", Counter, []string{"cache"}, nil, "Loads that waited for the load of another process instead of asking the origin."}
	CacheRefreshes     = Series{"cache_refreshes_total", Counter, []string{"cache", "outcome"}, nil, "Loads behind the callers' backs by outcome: ok, error, or shed because the origin had enough to do."}
	CacheFallbacks     = Series{"cache_fallbacks_total", Counter, []string{"cache"}, nil, "Stale values served because the origin failed or was too slow."}
	CacheVerified      = Series{"cache_verified_total", Counter, []string{"cache", "outcome"}, nil, "Hits that were compared with their origin by outcome: same, changed (and invalidated since), stale (not invalidated), skipped or failed."}
	CacheCovered       = Series{"cache_covered_ratio", Gauge, []string{"prefix"}, nil, "Share of the key space whose changes Redis tells this process; only there values are kept in the process."}
	CacheResidents     = Series{"cache_resident_values", Gauge, []string{"cache"}, nil, "Values kept in this process."}
	CacheResidentBytes = Series{"cache_resident_bytes", Gauge, []string{"cache"}, nil, "Their size: keys, encoded values and what keeping them costs."}
	CacheBroken        = Series{"cache_breaker_open", Gauge, []string{"server"}, nil, "1 while a Redis node is left alone because it failed, 0 otherwise."}
	CacheMemoryUsed    = Series{"cache_memory_used_bytes", Gauge, []string{"server"}, nil, "Memory that a Redis node counts against its maxmemory."}
	CacheMemoryMax     = Series{"cache_memory_max_bytes", Gauge, []string{"server"}, nil, "A Redis node's maxmemory; absent when it has none."}
	CacheEvicted       = Series{"cache_evicted_keys_total", Counter, []string{"server"}, nil, "Keys that a Redis node has evicted."}
	CacheEvicting      = Series{"cache_evicting", Gauge, []string{"server"}, nil, "1 where a Redis node evicts keys when its memory is full, 0 where it refuses writes then (maxmemory-policy noeviction)."}
	CacheInvalidated   = Series{"cache_invalidated_keys_total", Counter, []string{"cache"}, nil, "Keys removed by invalidation."}
)

// The queue series. Values of queue_tasks are the same on every instance: take max by queue, never sum.
var (
	QueueTasks          = Series{"queue_tasks", Gauge, []string{"queue", "state"}, nil, "Jobs in a queue by state, the same number on every instance."}
	QueueOldestPending  = Series{"queue_oldest_pending_seconds", Gauge, []string{"queue"}, nil, "Age of the oldest job that waits."}
	QueueEnqueued       = Series{"queue_enqueued_total", Counter, []string{"queue", "outcome"}, nil, "Jobs given to a queue by outcome."}
	QueueDesiredWorkers = Series{"queue_desired_workers", Gauge, []string{"queue"}, nil, "Workers that the autoscaler asks for."}
	QueueWorkerSlots    = Series{"queue_worker_slots", Gauge, nil, nil, "Jobs that this worker process may run at the same time."}
	QueueLimited        = Series{"queue_rate_limited_total", Counter, []string{"queue"}, nil, "Times that a worker waited for a queue's rate limit."}
	QueueRateLimit      = Series{"queue_rate_limit_jobs_per_second", Gauge, []string{"queue"}, nil, "Starts per second that a queue's rate limit allows the whole fleet; absent where it has none."}
	QueueStalled        = Series{"queue_stalled_total", Counter, []string{"queue"}, nil, "Jobs taken back from workers that died or hung."}
	QueueDead           = Series{"queue_dead_total", Counter, []string{"queue"}, nil, "Jobs that used up their attempts and are kept among the failed ones."}
	QueueCut            = Series{"queue_failed_cut_total", Counter, []string{"queue"}, nil, "Failed jobs that a tool of asynq's has cut off when it archived others, at least: those that had not failed at the last sample are not seen, nor what a process found that died, or sampled no more, before it heard. Their data are still stored, but nothing lists them."}
	JobDuration         = Series{"job_duration_seconds", Histogram, []string{"queue", "type", "outcome"}, jobBuckets, "Duration of jobs by queue, type and outcome: done, failed, requeued."}
)

// The session, read-only and process series.
var (
	SessionCommands  = Series{"session_store_operations_total", Counter, []string{"operation", "outcome"}, nil, "Session operations by outcome: what the store was asked, cookies of a wrong form, loads that found nothing usable or no store, changes that came too late, and log-outs that ended something."}
	ReadOnlyEnabled  = Series{"readonly_enabled", Gauge, nil, nil, "1 while this instance refuses writes."}
	ReadOnlyEpoch    = Series{"readonly_epoch", Gauge, nil, nil, "Epoch of the read-only state that this instance obeys."}
	ReadOnlyRefused  = Series{"readonly_refused_total", Counter, []string{"surface"}, nil, "Writes refused by read-only mode: http, or check for those refused further down."}
	AdminWrites      = Series{"admin_writes_total", Counter, []string{"operation", "outcome"}, nil, "Writes of the management listener by operation and outcome: done, dry_run, invalid, refused (of who may not, or too often), or failed. What is done by itself, such as read-only mode that trips, counts too. Refused callers who are too many to record do not."}
	BackgroundErrors = Series{"scaleaware_background_errors_total", Counter, []string{"package", "task"}, nil, "Failures of background work, each also logged."}
	SamplerSuccess   = Series{"scaleaware_sampler_last_success_timestamp_seconds", Gauge, []string{"package", "task"}, nil, "Unix time of a sampler's last success; until the first one, of its start."}
)

// The evaluator's own series.
var (
	EvaluationDuration = Series{"scaleaware_evaluation_duration_seconds", Histogram, nil, dbBuckets, "Time that an evaluation of the key metrics took, with gathering and exchanging snapshots. When the last one was is scaleaware_sampler_last_success_timestamp_seconds of the task evaluate."}
	Notifications      = Series{"scaleaware_notifications_total", Counter, []string{"outcome"}, nil, "Messages about alerts by outcome: sent, failed (each attempt), or dropped because too many groups wait."}
)

var redisBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}

// The series of a go-redis client, made by redismetrics. client is the name given there, server a node's address.
var (
	RedisCommandDuration = Series{"redis_command_duration_seconds", Histogram, []string{"client", "command", "outcome"}, redisBuckets, "Duration of Redis calls by class of command and outcome, with all attempts; a pipeline is one call."}
	RedisPipelined       = Series{"redis_pipelined_commands_total", Counter, []string{"client"}, nil, "Commands sent in pipelines and transactions."}
	RedisDialDuration    = Series{"redis_dial_duration_seconds", Histogram, []string{"client", "outcome"}, redisBuckets, "Time to connect to Redis, by outcome."}
	RedisPoolUsed        = Series{"redis_pool_used_connections", Gauge, []string{"client", "server"}, nil, "Connections of a client's pool in use now."}
	RedisPoolMax         = Series{"redis_pool_max_connections", Gauge, []string{"client", "server"}, nil, "Most connections that a client's pool may open to a server."}
	RedisPoolWaiters     = Series{"redis_pool_waiters", Gauge, []string{"client", "server"}, nil, "Callers waiting for a connection now."}
	RedisPoolWait        = Series{"redis_pool_wait_seconds_total", Counter, []string{"client", "server"}, nil, "Time that callers have waited for a connection."}
	RedisPoolTimeouts    = Series{"redis_pool_timeouts_total", Counter, []string{"client", "server"}, nil, "Callers that gave up waiting for a connection."}
)

// The series of jobs under way, and of what evicts.
var (
	JobActive         = Series{"job_active", Gauge, []string{"queue", "type"}, nil, "Jobs running in this process now."}
	CacheMemoryPolicy = Series{"cache_memory_policy_info", Gauge, []string{"server", "policy"}, nil, "1 for a Redis node's maxmemory-policy: full memory is the normal state of a policy that evicts, and refused writes with noeviction."}
)

// What others make: client_golang's process and Go collectors, and Prometheus itself.
var (
	processCPU    = Series{"process_cpu_seconds_total", Counter, nil, nil, "Total user and system CPU time spent in seconds."}
	processMemory = Series{"process_resident_memory_bytes", Gauge, nil, nil, "Resident memory size in bytes."}
	processFiles  = Series{"process_open_fds", Gauge, nil, nil, "Number of open file descriptors."}
	goGoroutines  = Series{"go_goroutines", Gauge, nil, nil, "Number of goroutines that currently exist."}
	up            = Series{"up", Gauge, nil, nil, "1 when the last scrape of a target succeeded."}
	activeAlerts  = Series{"ALERTS", Gauge, []string{"alertname", "alertstate", "severity", "metric"}, nil, "1 for each alert that is pending or firing."}
)

// foreign are the series that others make and our rules and dashboard read.
func foreign() []Series {
	return []Series{processCPU, processMemory, processFiles, goGoroutines, up, activeAlerts}
}

// Contract returns every series that this module exports, in the order of this file.
func Contract() []Series {
	return []Series{
		HTTPRequestDuration, HTTPActiveRequests, HTTPRouteOverflow,
		DBPoolAcquired, DBPoolMax, DBPoolWaiters, DBPoolAcquireWait, DBPoolAcquireTime, DBPoolFailures, DBFleetMax, DBServerMax,
		DBQueryDuration, DBReads, DBMisroutes, DBHedgedReads, DBShadowReads, DBReplicaStale, DBNodeUp, DBTokens, DBSize,
		CacheRequests, CacheLoads, CacheFills, CacheWaited, CacheRefreshes, CacheFallbacks, CacheVerified, CacheCovered, CacheResidents, CacheResidentBytes, CacheBroken, CacheMemoryUsed, CacheMemoryMax, CacheEvicted, CacheEvicting, CacheInvalidated,
		QueueTasks, QueueOldestPending, QueueEnqueued, QueueDesiredWorkers, QueueWorkerSlots, QueueLimited, QueueRateLimit, QueueStalled, QueueDead, QueueCut, JobDuration,
		SessionCommands, ReadOnlyEnabled, ReadOnlyEpoch, ReadOnlyRefused, AdminWrites, BackgroundErrors, SamplerSuccess,
		EvaluationDuration, Notifications,
		RedisCommandDuration, RedisPipelined, RedisDialDuration, RedisPoolUsed, RedisPoolMax, RedisPoolWaiters, RedisPoolWait, RedisPoolTimeouts,
		JobActive, CacheMemoryPolicy,
	}
}
