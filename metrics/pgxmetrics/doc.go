// Package pgxmetrics measures a pgxpool.Pool that is used without dbsplit, with dbsplit's series and their meaning.
//
// # Promises
//
//   - Queries are told apart by operation names: those in a comment of the form "-- name: GetLead :one", which sqlc writes,
//     or those that a function returns. SQL text never becomes a label, and there are at most 200 names.
//   - The pool's connections in use are an average over time, so that what happens between two samples counts.
//   - Callers who wait for a connection are seen while they wait, and the time they wait grows while they do: pgxpool's own
//     statistics count a wait when it has ended well, and so show a pool that hangs as idle.
//   - A tracer that the pool has already goes on working.
//
// # When things fail
//
// Nothing here does I/O. Without Run, queries and waits are measured and the averages are absent.
//
// # Use
//
//	m, err := pgxmetrics.New(registry, &pgxmetrics.Options{Name: "leads"})
//	config, err := pgxpool.ParseConfig(url)
//	m.Attach(config, "primary") // after the config has its own tracer, before the pool is made
//	pool, err := pgxpool.NewWithConfig(ctx, config)
//	group.Go(func() error { return m.Run(ctx) })
package pgxmetrics
