// Package session keeps logged-in sessions in Redis, on one node or a cluster, on top of alexedwards/scs.
//
// # Promises
//
//   - A session that was logged out, or whose token was renewed, stays gone: a request that was in flight meanwhile
//     cannot write it back, nor give it another token: scs's RenewToken and Destroy then return [ErrRevoked], also when another
//     request of the session was faster, as at a double click; [Manager.Login] takes no notice of that. A response has a
//     quarter of an hour to begin after RenewToken. Every write of a loaded session is one script that compares what is stored
//     with what was loaded.
//   - Parallel requests of one session do not lose each other's values: each key that one of them changed survives,
//     and a removed key stays removed. When two change the same key, the later commit wins. However many of them a process
//     serves, each waits for the command that is under way and for one more.
//   - What a request in flight changes is not lost when the token is renewed meanwhile: it is stored under the new one, as if it
//     had been before. With the old token nobody gets in, and a request that comes with it late does not take the new
//     cookie's place.
//   - [Manager.LogoutEverywhere] ends all sessions of a principal with two commands, on every instance, in flight or not,
//     listed or not, and open streams that [Manager.Watch] guards. A log-in whose request began before it does not survive
//     it.
//   - Redis has no token that anybody could log in with, only its hash, and with [Options.Secrets] nothing of what is in a
//     session.
//   - A session that a request does not use costs nothing; reading it costs one command, with the refresh of its idle
//     timeout, and writing it two. Asking for a principal's generation adds one now and then: see [Options.Strict].
//   - The session carries the consistency token: what a request wrote to the database, the session's next request
//     sees, on any instance, even from a replica. The token never goes back. Where the position could not be learned in
//     time, the session says so until a later request has learned it.
//   - The session is stored, and its cookie set, before the first byte of the response: before Flush, Hijack and
//     ReadFrom too. Informational responses do not count.
//   - A token that the store does not know is never adopted. A cookie value of another form than ours never reaches
//     Redis.
//   - Keys and values are those of scs with scs/redisstore and HashTokenInStore, so a service moves to this package and back
//     with everybody logged in. [Options.TokenForm] does the same for scs without HashTokenInStore. Encrypted sessions
//     stay here.
//
// # Failures
//
// When Redis does not answer within [Options.StoreTimeout], requests that use no session go on; those that do are
// refused with 503, served as anonymous, or as what the process read last, as [Options.OnStoreDown] or the route's
// [Manager.OnStoreDown] says. A client that redisclient.New did not make may wait longer; New logs what is wrong with it.
// A failover of Redis can lose the writes of its last moments, log-outs included, since its replication is asynchronous.
// Data that cannot be decoded or decrypted is counted, and its owner gets a new session. What a handler puts into the
// session after the response has begun is lost, counted and logged; [Session.Put] returns [ErrLate]. A generation that
// Redis has evicted ends its principal's sessions.
//
// # Use
//
// [New] makes a [Manager]; wrap handlers in [Manager.Middleware] and let [Manager.Run] run; use [Manager.Login],
// [Manager.Logout] and [Principal], [From] for values, and [Manager.SCS] for everything that scs can do, with r.Context():
// scs finds the session there and loads it at its first call. Do not use scs's own LoadAndSave with it, and leave scs's
// IdleTimeout and HashTokenInStore alone: the former makes each request write, the latter hashes a second time.
// [NewWithStore] takes any other scs.Store, such as scs/redisstore on a single node; what is weaker then is said there.
//
// A session whose cookie shall end with the browser unless its owner asks otherwise: set SCS().Cookie.Persist to false, and
// call SCS().RememberMe after Login; SCS().SetDeadline gives that session a longer life.
//
// For clients without a session, scaleaware.Carrier takes the consistency token. Both may wrap the same handler, in
// either order: they share the Watermark in the context. The session alone never comes into being just to carry a token.
//
// Making a manager starts one goroutine that never ends: scs.New starts a cleaner for an in-memory store that is not
// used here, and offers no way around it.
package session
