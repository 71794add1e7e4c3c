// Package cachebench measures cache against its peers: otter and sturdyc in the process, go-redis, its AutoPipeline, its
// cache and rueidis over a Redis Cluster, and redis-benchmark for what the servers can do at all.
package cachebench
