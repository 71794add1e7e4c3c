// Package cache is a typed cache over one Redis, a Sentinel pair or a Redis Cluster, that protects the origin behind it.
//
// # Promises
//
//   - A value that was loaded before an invalidation is never stored after it, in any process. Each fill begins by
//     leaving a lease with an owner of its own in the entry's place, and the entry is written by a script that compares
//     it; a delete takes the lease away, and an absent lease means refuse. The promise holds as long as the Redis
//     master that acknowledged the invalidation lives: Redis replicates asynchronously, so a failover can bring back
//     what was deleted in the moment before it, until its TTL ends. Callers whose context carries a token are
//     protected from that too.
//   - Calls that begin after Delete or Invalidate returned in this process never share a load that began before it.
//   - A caller whose context says what it wrote (scaleaware.Watermark) is not given an entry that is older, or whose
//     age is unknown: such an entry is a miss for this caller only. Where both are known, an older fill never replaces
//     a newer entry of the same timeline.
//   - One load for a key at a time in a process, however many callers wait for it. It is not cancelled with the
//     first of them. At most Options.MaxLoads loads run in a process at a time, Redis up or down.
//   - No key outside Options.Prefix is read or written, whatever a pattern says.
//   - ExtendTTLs never shortens an expiry and never gives one to a key that has none; RestoreTTLs takes it back.
//
// # Failure
//
// When Redis is slow, hung or gone, a look-up ends after Options.RedisTimeout and Load goes to the origin, within the
// cap; calls beyond the cap wait up to Options.LoadWait and then get ErrShed. Nothing is stored by a load that could
// not leave its lease. The client must honour contexts for that (redis.Options.ContextTimeoutEnabled); the
// redisclient package sets it. A value that cannot be decoded, of another version or of another schema is a miss
// and is overwritten. Delete and Invalidate return an error when any node could not be reached: what they name may
// then be served until its TTL ends; call again. A cache whose Redis is down at start works as one that misses, Ready
// says so, and it heals by itself.
//
// # Use
//
//	store, err := cache.New(rdb, &cache.Options{Prefix: "app:"})
//	leads := cache.Of[Lead](store, "lead", cache.TTL(10*time.Minute))
//	lead, err := leads.Load(ctx, id, func(ctx context.Context, id string) (Lead, error) { … })
//	err = leads.Delete(ctx, id) // after the commit
//
// Entries live at prefix + view + ":" + key. [Store.Run] samples the servers, follows TTL extensions made by other
// processes and runs the warming schedule; a Store that is not running caches all the same.
package cache
