// Package rediscluster runs real Redis servers for tests and for the demo: one plain server, or a cluster of three masters
// with a replica each, from the redis-server binary of this machine. redis-cli is not needed.
//
// It promises:
//
//   - [Start] returns when every node's own view is complete: all slots served, all nodes known, all replicas in sync. It
//     takes about two and a half seconds, two of which every Redis master waits after its start before it takes writes.
//   - Nothing is left behind, even when the process panics or is killed; several clusters run side by side. See package
//     internal/localserver.
//   - A server's log is part of the error when the start fails, and of [Cluster.Logs]; else it is never printed.
//
// Faults are methods of [Node]: Kill (SIGKILL) and Start, Freeze (SIGSTOP) and Thaw, Failover, SetMaxMemory, SetClock;
// and of [Cluster]: MigrateSlot, step by step with BeginMigration, and LoseSlot. [Cluster.WaitHealthy] waits until all nodes that run agree
// again. Servers lose their data when they are killed: nothing is persisted, unless Options.Config says so.
//
// Who is a master, and of what, is what the nodes say of themselves at that moment; a node that does not answer within a
// second is not asked again. To put a faultconn proxy in front of a node, map the node's address to the proxy's in the
// client's Dialer: the cluster goes on announcing the real one.
package rediscluster
