package dbsplit_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// rarely lets the monitor look when it is asked to, and hardly ever else.
func rarely(monotonic bool) *dbsplit.Options {
	return &dbsplit.Options{ProbeInterval: time.Hour, MaxStaleness: time.Hour, MonotonicReads: monotonic, MaxConns: 8}
}

// A replica restarts between two probes and stands at an older position. Reads over new connections to it go back neither
// behind what their caller wrote nor behind what it saw.
func TestReplicaRestartsBetweenProbes(t *testing.T) {
	t.Parallel()
	ctx := within(t, 80*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	r := c.Replica(0)
	const count = "select count(*)::int from notes"
	toReplica := dbsplit.WaitForReplica(20 * time.Second)
	writing, reading := run(t, nodesOf(c, "postgres"), rarely(false)), run(t, nodesOf(c, "postgres"), rarely(true))
	exec(t, writing, "create table notes (n int)")
	writer, _ := scaleaware.WithWatermark(ctx)
	exec(t, watched{writing, writer}, "insert into notes values (1)")
	must(t, r.WaitCaughtUp(ctx))
	reader, _ := scaleaware.WithWatermark(ctx)
	type caller struct {
		ctx context.Context
		db  *dbsplit.DB
	}
	callers := map[string]caller{"what it wrote": {writer, writing}, "what it saw": {reader, reading}}
	before := make(map[string]string)
	for name, who := range callers {
		await(t, who.db, "a replica", func() bool {
			var p dbsplit.Provenance
			who.db.Look()
			read := who.db.Read(toReplica, dbsplit.OnRoute(func(now dbsplit.Provenance) { p = now }))
			return get[int](t, who.ctx, read, count) == 1 && p.Role == "replica"
		})
		// After a start, and after reads that have waited, the monitor looks more often for a while.
		await(t, who.db, "the monitor to rest", func() bool { return who.db.Nodes()[1].Staleness > 800*time.Millisecond })
		before[name] = who.db.Nodes()[1].LSN
	}
	must(t, r.SetApplyDelay(ctx, time.Hour)) // so that it stays where it comes up
	r.Kill()
	must(t, r.Start(ctx))
	for name, who := range callers {
		must(t, who.db.Resize(ctx, 8)) // its connections are new ones
		if n := who.db.Nodes()[1]; !n.Up || n.LSN != before[name] {
			t.Fatalf("the monitor has noticed, so this test shows nothing: %+v", n)
		}
		var n int
		if err := who.db.Read().QueryRow(who.ctx, count).Scan(&n); err != nil || n != 1 {
			t.Errorf("after the restart the caller does not see %s: %d rows, %v", name, n, err)
		}
	}
}

// A pool that grows long after the last probe does not turn reads away from their replica.
func TestPoolGrowsBetweenProbes(t *testing.T) {
	c := shared.Get(t)
	for _, monotonic := range []bool{false, true} {
		db := run(t, nodesOf(c, c.Database(t)), rarely(monotonic))
		ctx, _ := scaleaware.WithWatermark(within(t, 30*time.Second))
		exec(t, watched{db, ctx}, "create table notes (n int)")
		read := func() string {
			return served(t, ctx, db.Read(dbsplit.WaitForReplica(20*time.Second)))
		}
		await(t, db, "a replica", func() bool { db.Look(); return read() == "replica" })
		var held []pgx.Tx
		for range 6 { // of the 8 that the pool may open
			tx, err := db.Read().Begin(ctx)
			must(t, err)
			held = append(held, tx)
			if at := served(t, ctx, tx); at != "replica" {
				t.Errorf("a read over a new connection was served by the %s", at)
			}
			if at := read(); at != "replica" {
				t.Errorf("the next read was served by the %s", at)
			}
		}
		for _, tx := range held {
			must(t, tx.Rollback(ctx))
		}
	}
}
