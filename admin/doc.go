// Package admin is the operations floor: packages hand it their operations, and it mounts them once with
// authentication, audit, one error shape, an OpenAPI document and a console page.
//
// # Promises
//
//   - Nobody changes anything without a token. With no token configured, reads are served to loopback peers only and
//     writes are refused, unless Options.AllowInsecureLoopback says otherwise.
//   - Loopback is trusted only for a request that no header says was forwarded and whose Host header is a loopback name, so
//     neither a proxy on the same machine that says what it does nor a page that rebinds its DNS name borrows that trust. A
//     proxy that adds no header and names its target as the host does: set a token.
//   - Every write passes http.CrossOriginProtection, knows dry_run, and leaves an audit record, refused ones included.
//   - Input is checked before an operation sees it: unknown query parameters, unknown or repeated body fields, wrong
//     types and anything that is not JSON are refused with the name of what is wrong, and nothing is changed.
//   - /openapi.json describes exactly what is served.
//   - The console page shows the operations that are mounted and no others, runs nothing but its own files, and offers only
//     what its caller may do. Without its script it has tables, and forms that make the same requests.
//   - No answer holds the text of an error that the operation did not write for clients, except those of readiness checks
//     and of parts of a report, which only callers who proved who they are see, or loopback where no token is configured.
//     All other texts go to the log.
//
// # Failure
//
// Errors are application/problem+json. An operation that passes Options.Timeout is a 504; an operation that panics is a
// 500 and the process lives. /livez touches nothing; /readyz waits for a check no longer than Options.CheckTimeout,
// and a check that hangs is never started a second time. Background work ends when Run's context ends; before Run it is
// refused with 503. The records of audit and of background work are kept in memory, bounded, and end with the process:
// Options.Audit and Options.Logger take them elsewhere.
//
// # Use
//
// [New] takes the operations of all packages and returns an [http.Handler] for a listener of its own, loopback by
// default; [Handler.Run] owns background work; [Serve] is a small server around it.
package admin
