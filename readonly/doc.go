// Package readonly is one switch for all instances of a service that stops its writes and keeps its reads.
//
// # Promises
//
//   - A read is never refused: GET, HEAD, OPTIONS, TRACE and QUERY pass the middleware, unless they open a WebSocket or a
//     header overrides their method.
//   - "held" is a proof. Every instance that was heard of in the last minute refuses writes; the requests, jobs and database
//     connections that began before have ended; and in the database every transaction has ended that had begun to write
//     before that, with none left of this service that could. Programs that know nothing of the switch are not
//     stopped: they are listed.
//   - Whatever is not yet true is said as it is: [Report] counts what is awaited, and names who.
//   - An empty request to the operation enables and never toggles; enabling twice is enabling once.
//   - The state has an epoch that only grows. A lost, evicted or rolled-back state in the store is written back by any
//     instance that knows a later epoch. A message is only a reason to read the store, so forging one switches nothing.
//   - What a [Keeper] has tripped ends by itself with its cause or its keepers; what a person has enabled does not.
//   - The steps of an [Incident] are done, and undone, whoever dies in between.
//
// # Failure behaviour
//
// When the store is lost, an instance keeps the last state that it knew; with Options.Isolated it stops writing after a
// while, which is what makes "held" true of an instance that is cut off from the store and not from the database. An
// instance that never reached the store, or of which the others have not heard yet, refuses writes, unless
// Options.AssumeWritable says otherwise. A store that forgot the state and has nobody to tell it lets a new instance write
// until then: readonly/pairstore keeps a second witness. A lost push costs at most one poll interval. [Switch.Ready]
// reports a store that does not answer; it says nothing about the mode, so a read-only instance stays in rotation. Clocks
// end Until and leases: each instance looks at its own, and says with its next poll that it writes. The store's may be
// set: an instance that seems to have been silent for more than a minute is waited for during three polls, in which it
// would be heard if it lived. So for a day after an instance died without saying goodbye a change takes these three polls.
//
// # Use
//
// [Switch.Middleware] answers 503 early and politely. The gate is [Switch.AllowWrite], the small interface that dbsplit
// and queue ask before they write: it holds for whatever path a write takes. [Switch.CountConnections] and
// [Switch.CountJobs] tell the fence what to wait for, and Options.Witness proves the rest. Tier [Staff] and
// Change.Tenants close the service to some only; nothing can be proven then. [Switch.Changed] tells long-lived connections.
// [Switch.Run] is the last to end: without it nothing is written.
package readonly
