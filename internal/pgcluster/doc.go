// Package pgcluster runs a real PostgreSQL primary with streaming replicas
// from local binaries, on loopback, in a temporary directory, for tests and for
// the demo. PostgreSQL 15 to 18, as root and not as root.
//
// It promises:
//
//   - [Start] returns when every replica streams and has replayed everything.
//   - Each verb returns when its effect can be seen: after [Server.PauseReplay]
//     no row reaches the replica, after [Server.CutStream] its WAL receiver is
//     gone. So lag is a switch in a test, never a sleep.
//   - Faults are real: [Server.Kill] is SIGKILL and [Server.Freeze] SIGSTOP, for
//     the postmaster and for every backend.
//   - Nothing survives [Cluster.Close], nor the death of this process.
//
// When PostgreSQL is missing, the error matches localserver.ErrNotInstalled.
// Anyone on this machine may log in, and durability is off: nothing here is for data
// that matters.
//
// One cluster serves all tests of a package, and each test has a database of
// its own:
//
//	var shared = pgcluster.NewShared(&pgcluster.Options{Replicas: 2})
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Around(m)) }
//
//	func TestSomething(t *testing.T) {
//		c := shared.Get(t)
//		database := c.Database(t)
//		pool, err := pgxpool.New(t.Context(), c.Primary().URL(database))
package pgcluster
