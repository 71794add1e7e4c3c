// Package cache is a typed cache of two levels, in the process and in Redis (one node, a Sentinel pair or a Redis Cluster),
// that protects the origin behind it.
//
// # Promises
//
//   - A value that was loaded before an invalidation is never stored after it, in any process. Each fill begins by
//     leaving a lease with an owner of its own in the entry's place, and the entry is written by a script that compares it;
//     a delete takes the lease away, and an absent lease means refuse. The promise holds as long as the Redis
//     master that acknowledged the invalidation lives: Redis replicates asynchronously, so a failover can bring
//     back what was deleted in the moment before it, until its TTL ends. Callers whose context carries a token are protected
//     from that too.
//   - Calls that begin after Delete, Set, Invalidate or InvalidateTags returned in this process get nothing from before it,
//     from neither level, and share no load that began before it.
//   - What a process keeps (see [InProcess]) is dropped within milliseconds after any process changed or removed its entry:
//     Redis tells (CLIENT TRACKING, broadcast, on every master). A process that is cut off uses nothing of what it keeps
//     after [Options.Silence]; nor does it after a connection was lost, a slot has moved or a master was emptied, since
//     something may have been missed.
//   - A caller whose context says what it wrote (scaleaware.Watermark) is not given a value that is older, or whose age
//     is unknown, from either level: such an entry is a miss for this caller only. Where both are known, an
//     older fill never replaces a newer entry of the same timeline. What was loaded of unknown age replaces no entry of known
//     age until a minute after the load of that began.
//   - When a caller invalidates whose context says what it wrote, by Delete, Invalidate or InvalidateTags, a value that is
//     known to be older, since a replica that lags has answered its load, is not stored for a minute, whoever takes away
//     meanwhile what was loaded since. The load is made again, and told what it must have seen. What Delete and InvalidateTags
//     ask for is found in Redis by every load. What Invalidate asks for, stores that run are told, in milliseconds; one that
//     does not run, and one for as long as it cannot reach the master that has the store's rules, may store what is older,
//     and serve it, while stores that know of the invalidation do not serve it within that minute, either. A replica that
//     lags for longer goes by the other promises, and so does a TTL shorter than the lag. What Set stores within the minute
//     carries on nothing of what Delete asked for, nor what is loaded of unknown age, once that is stored again: when it is
//     taken away in its turn, a value that is older may be stored.
//   - One load for a key at a time in all processes, however many callers wait for it: it takes a claim, which it keeps
//     while it runs, and which ends within three seconds when its process dies. Who wrote does not wait for a load that may
//     not see that. A load is not cancelled with the first of its callers. At most [Options.MaxLoads] loads run in a
//     process at a time, Redis up or down, beside those that a loader itself begins: they go on its turn.
//   - Stale values are served only where the view allows it, [StaleWhileRevalidate] and [StaleIfError], and never when they
//     were invalidated or are older than what the caller wrote. When neither Redis nor the origin answers, a process
//     cannot know what others have invalidated since it lost Redis, and StaleIfError serves what it keeps.
//   - No key outside [Options.Prefix] is read or written, whatever a pattern says.
//   - ExtendTTLs never shortens an expiry and never gives one to a key that has none; RestoreTTLs takes it back. Neither
//     empties the level in the process, but for RestoreTTLs where a server refuses CLIENT TRACKING.
//
// # Failure
//
// When Redis is slow, hung or gone, a look-up ends after Options.RedisTimeout and Load goes to the origin, within the
// cap; calls beyond the cap wait up to Options.LoadWait and then get ErrShed, or, with StaleIfError, the stale value that
// the process keeps. A store that runs leaves a
// master alone that failed five times in a row, but for four trials a second; only invalidations of many keys, by tags or
// by pattern, ask it all the same. While the master that has the store's rules is silent, what is kept in the process is
// not used, and is read from Redis instead. Nothing is stored by a load that could not leave its lease.
// The client must honour contexts for that (redis.Options.ContextTimeoutEnabled); the redisclient package sets it.
// A value that cannot be decoded, of another version or of another schema is a miss and is overwritten.
//
// Delete, Set and the invalidations return an error when any node could not be reached: what they name may then be served
// until its TTL ends; call again. A store that runs also makes good for it by itself when Redis is back, but for a key
// that was set or deleted since in the same process: the newest wins. What tags and patterns name is a miss then, whatever was
// stored since, and so may be a key that is set in that moment. Invalidate first makes a rule, which bars at once,
// in all stores that run, what it names; the sweep behind it gives the memory back, and is finished by another process when
// its own dies. A cache whose Redis is down at start works as one that misses, Ready says so, and it heals by itself.
//
// A rule that Redis loses, by eviction or because its master was emptied, is put back by stores that run, which go on barring
// by it. When none of them knows it any more, the next one finds by a key in another slot that there were rules, and
// everything is loaded anew, once. The clock of invalidations, when its key is lost, goes on from what running stores, rules
// and that key know, so that the clock of a server that is behind does no harm. What remains: all of these keys are lost
// at the same time while no store runs, or no store that ran has lived for ten seconds since the clock showed more.
//
// Where a server refuses CLIENT TRACKING, processes publish what they change, and return an error when they cannot; then what
// foreign programs change is not heard of before its TTL ends.
//
// # Use
//
//	store, err := cache.New(rdb, &cache.Options{Prefix: "app:"})
//	leads := cache.Of[Lead](store, "lead", cache.TTL(10*time.Minute), cache.InProcess(cache.Local{}))
//	lead, err := leads.Load(ctx, id, func(ctx context.Context, id string) (Lead, error) { … })
//	err = leads.Delete(ctx, id) // after the commit
//
// Entries live at prefix + view + ":" + key. Store.Run listens for what changes, follows invalidations and TTL extensions
// of other processes, samples the servers and runs the warming schedule; a Store that is not running caches all the same,
// in Redis only. NewLocal makes a store without Redis.
package cache
