// Package pgbouncer runs a real PgBouncer from a local binary, on loopback, before one PostgreSQL server, for tests.
//
// It promises:
//
//   - [Start] returns when the pooler accepts connections.
//   - Nothing is smoothed over: startup parameters are refused, statements prepared and sessions reset as PgBouncer does
//     by default, unless Options.Settings says otherwise.
//   - [Pooler.Console] reads PgBouncer's own counters, so "nothing was sent" can be asserted.
//   - Nothing survives [Pooler.Close], nor the death of this process: see package localserver.
//
// When PgBouncer is missing, the error matches localserver.ErrNotInstalled. Anyone on this machine may log in.
package pgbouncer
