package dbsplit_test

import (
	"context"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// One fault after the other hits the primary while all ways to write are in use. What was acknowledged is there, what has
// an unknown outcome is there once or not at all, and what failed is not.
func TestLedgerOverFaults(t *testing.T) {
	t.Parallel()
	ctx := within(t, 5*time.Minute)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	p, through := proxied(t, c.Primary(), "postgres")
	nodes := nodesOf(c, "postgres")
	nodes.Primary = through
	db := run(t, nodes, &dbsplit.Options{FailoverWait: time.Minute, MaxConns: 12})
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	b := openLedger(t, db)
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	b.write(t, db, 1)
	b.progress(t, db, 20)
	silent := func() bool { return !db.Nodes()[0].Up }
	for _, fault := range []struct {
		name  string
		begin func()
		seen  bool // the monitor notices
		end   func()
	}{
		{"FIN", p.Cut, false, p.Heal},
		{"RST", p.Reset, false, p.Heal},
		{"answers lost", func() { p.Blackhole(faultconn.ToClient) }, true, p.Heal},
		{"black hole", func() { p.Blackhole(faultconn.Both) }, true, p.Heal},
		{"half-open", func() { p.HalfOpen(); p.Refuse() }, true, p.Heal},
		{"refused", func() { p.Refuse(); p.Cut() }, true, p.Heal},
		{"backends ended", func() {
			must(t, c.Primary().Exec(ctx, "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"))
		}, false, func() {}},
		{"SIGKILL", c.Primary().Kill, true, func() { must(t, c.Primary().Start(ctx)) }},
		{"disk full", func() { must(t, c.Primary().FillDisk(64<<10)) }, true, func() { c.Primary().Kill(); must(t, c.Primary().Start(ctx)) }},
		{"SIGSTOP", c.Primary().Freeze, true, c.Primary().Thaw},
		{"restart", func() { must(t, c.Primary().Stop(ctx)) }, true, func() { must(t, c.Primary().Start(ctx)) }},
	} {
		fault.begin()
		if fault.seen {
			await(t, db, fault.name+" to be seen", silent)
		}
		fault.end()
		b.progress(t, db, 20)
		t.Log(fault.name, "is over")
	}
	// A clean stop hands everything to the replica, if that listens.
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	must(t, c.Primary().Stop(ctx))
	must(t, c.Replica(0).Promote(ctx))
	b.progress(t, db, 20)
	good, unknown, _ := b.settle(t, db, time.Time{})
	if unknown == 0 || good == 0 {
		t.Errorf("%d good writes, %d unknown outcomes: no fault has hit anything", good, unknown)
	}
	must(t, db.Ready(context.Background()))
}
