package dbsplit_test

import (
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// The primary dies, a replica is promoted, the other one follows it, and the old primary comes back unaware.
func TestPromotion(t *testing.T) {
	t.Parallel()
	ctx := within(t, 80*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 2})
	must(t, err)
	defer c.Close()
	defer func() {
		if t.Failed() {
			t.Log(c.Logs())
		}
	}()
	reg := prometheus.NewRegistry()
	db, err := dbsplit.Open(ctx, nodesOf(c, "postgres"), &dbsplit.Options{Registerer: reg})
	must(t, err)
	stop := start(t, db)
	defer db.Close()
	defer stop()
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	exec(t, db, "create table notes (n int)")
	session, w := scaleaware.WithWatermark(ctx)
	exec(t, watched{db, session}, "insert into notes values (1)")
	if _, err := w.Written(session); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		served(t, ctx, db.Read()) // the pools of readers are filled
	}
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}

	c.Primary().Kill()
	await(t, db, "Ready to fail", func() bool { return db.Ready(ctx) != nil })
	if s := served(t, ctx, db.Read()); s != "replica" {
		t.Errorf("without a primary served by the %s", s)
	}
	must(t, c.Replica(0).Promote(ctx))
	begun := time.Now()
	await(t, db, "writes", func() bool {
		_, err := db.Exec(ctx, "insert into notes values (2)")
		return err == nil
	})
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("the first write after the promotion took %v", took)
	}
	must(t, c.Replica(1).Follow(ctx, c.Replica(0)))
	await(t, db, "the other replica to follow", func() bool {
		n := db.Nodes()
		return n[1].Role == "primary" && n[2].Role == "replica" && n[2].Timeline == 2 && n[2].Staleness >= 0 && n[2].Staleness < time.Second
	})

	if n := get[int](t, session, db.Read(), "select count(*)::int from notes"); n < 2 {
		t.Errorf("with the old token %d rows", n)
	}
	if counter(t, reg, "db_tokens_total", "outcome", "old-timeline") != 1 || counter(t, reg, "db_reads_total", "reason", "old-timeline") != 1 {
		t.Error("the old token is not counted once")
	}
	await(t, db, "the renewed session on a replica", func() bool { return served(t, session, db.Read()) == "replica" })
	for range 20 {
		if err := db.Read().QueryRow(ctx, "insert into notes values (3) returning n").Scan(nil); !errors.Is(err, dbsplit.ErrWriteInRead) {
			t.Fatalf("a write through Read: %v", err)
		}
		if err := db.Read(dbsplit.PreferPrimary()).QueryRow(ctx, "insert into notes values (3) returning n").Scan(nil); !errors.Is(err, dbsplit.ErrWriteInRead) {
			t.Fatalf("a write through Read on the promoted server: %v", err)
		}
	}

	must(t, c.Primary().Start(ctx))
	await(t, db, "the old primary", func() bool { return db.Nodes()[0].Up })
	if n := db.Nodes()[0]; n.Role != "rival" || n.Advice == "" {
		t.Errorf("the old primary is %+v", n)
	}
	exec(t, db, "insert into notes values (4)")
	if n := get[int](t, ctx, db.Read(dbsplit.PreferPrimary()), "select count(*)::int from notes where n = 4"); n != 1 {
		t.Error("the write went to the old primary")
	}
	for range 20 {
		if n := get[int](t, ctx, db.Read(), "select count(*)::int from notes where n = 2"); n == 0 {
			t.Fatal("a read went to the old primary")
		}
	}

	// A process that starts now has the old primary configured.
	late := open(t, nodesOf(c, "postgres"), nil)
	defer late.Close()
	stopLate := start(t, late)
	defer stopLate()
	await(t, late, "the election", func() bool { n := late.Nodes(); return n[1].Role == "primary" && n[0].Role == "rival" })
	must(t, late.Ready(ctx))
}
