// Package session keeps logged-in sessions in Redis, on one node or a cluster, on top of alexedwards/scs.
//
// # Promises
//
//   - A session that was logged out, or whose token was renewed, stays gone: a request that was in flight meanwhile
//     cannot write it back. Every write of a loaded session is one script that compares what is stored with what was
//     loaded.
//   - Parallel requests of one session do not lose each other's values: each key that one of them changed survives,
//     and a removed key stays removed. When two change the same key, the later commit wins.
//   - The session carries the consistency token: what a request wrote to the database, the session's next request
//     sees, on any instance, even from a replica. The token never goes back. Where the position could not be learned in
//     time, the session says so until a later request has learned it.
//   - The session is stored, and its cookie set, before the first byte of the response: before Flush, Hijack and
//     ReadFrom too. Informational responses do not count.
//   - A token that the store does not know is never adopted. A cookie value of another form than ours never reaches
//     Redis.
//   - Keys and values are those of scs with scs/redisstore, so a service moves to this package and back with everybody
//     logged in.
//
// # Failures
//
// When Redis does not answer within [Options.StoreTimeout], requests without a session cookie go on; those with one are
// refused with 503, or served as anonymous, as [Options.OnStoreDown] says. A client that redisclient.New did not make may
// wait longer; New logs what is wrong with it. A failover of Redis can lose the writes of its last moments, log-outs
// included, since its replication is asynchronous. Data that cannot be decoded is counted, and its owner gets a new
// session. What a handler puts into the session after the response has begun is lost, counted and logged.
//
// # Use
//
// [New] makes a [Manager]; wrap handlers in [Manager.Middleware]; use [Manager.Login], [Manager.Logout] and [Principal],
// and [Manager.SCS] for everything that scs can do, with r.Context(). Do not use scs's own LoadAndSave with it, and leave
// scs's IdleTimeout and HashTokenInStore alone: the former makes each request write, the latter breaks its Iterate.
// [NewWithStore] takes any other scs.Store, such as scs/redisstore on a single node; what is weaker then is said there.
//
// For clients without a session, scaleaware.Carrier takes the consistency token. Both may wrap the same handler, in
// either order: they share the Watermark in the context. The session alone never comes into being just to carry a token.
//
// Making a manager starts one goroutine that never ends: scs.New starts a cleaner for an in-memory store that is not
// used here, and offers no way around it.
package session
