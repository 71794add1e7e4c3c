// Package redismetrics measures a go-redis client: calls, dials and the connection pool.
//
// # Promises
//
//   - Labels are bounded: commands are told apart by class, errors by kind, servers by address. Neither keys nor error texts
//     become labels.
//   - A call is measured as its caller sees it, with all its attempts and redirections; redis.Nil is no error.
//   - The hook allocates nothing, and the pool's numbers are read from memory: a scrape waits for no server. go-redis's own
//     PoolStats of a cluster client may ask one for the cluster's layout, so it is not used.
//
// # When things fail
//
// Nothing here does I/O. Pools of nodes that a cluster client knew before Attach are not seen: attach before the first
// command.
//
// # Use
//
//	rdb := redisclient.New(redisclient.Options(addrs...))
//	err := redismetrics.Attach(rdb, &redismetrics.Options{Name: "cache", Registerer: registry})
package redismetrics
