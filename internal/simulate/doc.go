// Package simulate runs the time-dependent logic of cache, queue, readonly and metrics against the clock of a
// testing/synctest bubble: hours in milliseconds, each run drawn from one seed. `make simulate` runs a thousand.
//
// # What a run is
//
// A world has one Redis (miniredis, in the process), one PostgreSQL (a few statements, spoken by pgproto3) and a network
// of net.Pipe between them and the processes, which are the real packages with their real clients: go-redis, asynq, pgx.
// The seed draws what the processes do, how long each message takes, and the faults: answers that are lost, connections
// that are closed before or after the command ran, processes that stand still, steps forward of Redis's clock. What the
// processes do is written down as they do it, and an invariant is checked over what was written.
//
// A failure prints the seed. The seed alone replays the run: what happens to a message depends on the seed, the process,
// the instant and the command. What goroutines of one process do at one instant is left to the scheduler; it shows seldom.
// TestSeedsReplay holds a seed's histories against each other, byte for byte: of 260 seeds of lease, one (199) has two, in
// which one call returns 42 ms sooner or later and nothing else differs.
//
// # What it is not
//
// Nothing here is said of Redis Cluster, of failover or of real servers: miniredis has one node, loses nothing and runs
// scripts by another interpreter. A process that stands still is one whose messages stand still: its own timers go on.
// All processes of a run share one clock; only Redis's differs.
package simulate
