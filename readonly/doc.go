// Package readonly is one switch for all instances of a service that stops its writes and keeps its reads.
//
// # Promises
//
//   - A read is never refused: GET, HEAD, OPTIONS, TRACE and QUERY pass the middleware, always.
//   - After [Switch.Enable] has returned with every instance acknowledged, each of them refuses new writes. Writing
//     requests that were in flight when an instance acknowledged are counted in the answer; running jobs are not. An
//     instance that fell silent is named as missing for a minute. The answer does not claim that the database is quiet.
//   - An empty request to the operation enables and never toggles; enabling twice is enabling once.
//   - The state has an epoch that only grows. A lost, evicted or rolled-back state in the store is written back by any
//     instance that knows a later epoch.
//
// # Failure behaviour
//
// When the store is lost, an instance keeps the last state that it knew. An instance that never reached the store refuses
// writes, unless Options.AssumeWritable says otherwise. A lost push costs at most one poll interval. [Switch.Ready]
// reports a store that does not answer; it says nothing about the mode, so a read-only instance stays in rotation.
//
// # Use
//
// [Switch.Middleware] answers 503 early and politely. The fence is [Switch.AllowWrite], the small interface that dbsplit
// and queue ask before they write: it holds for whatever path a write takes. [Incident] bundles the switch with other
// reversible steps under one epoch and one undo.
package readonly
