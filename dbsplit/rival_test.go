package dbsplit_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// A replica is started without its standby.signal, as after a restore by hand: two servers of one cluster take writes,
// on one timeline.
func TestTwoPrimariesOnOneTimeline(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	defer c.Close()
	var log syncBuffer
	reg := prometheus.NewRegistry()
	db, err := dbsplit.Open(ctx, nodesOf(c, "postgres"), &dbsplit.Options{Registerer: reg, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	must(t, err)
	defer db.Close()
	defer start(t, db)()
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	exec(t, db, "create table t (n int)")
	rival := c.Replica(0)
	must(t, rival.WaitCaughtUp(ctx))
	tx, err := db.Begin(ctx)
	must(t, err)
	_, err = tx.Exec(ctx, "insert into t values (0)")
	must(t, err)
	must(t, rival.Stop(ctx))
	must(t, os.Remove(filepath.Join(rival.Dir(), "standby.signal")))
	must(t, rival.Start(ctx))

	await(t, db, "the rival", func() bool { return db.Nodes()[1].Role == "rival" && db.Nodes()[1].Up })
	nodes := db.Nodes()
	if nodes[0].Timeline != nodes[1].Timeline {
		t.Fatalf("this test tests nothing: %+v", nodes)
	}
	for _, n := range nodes {
		if !strings.Contains(n.Advice, "same timeline") || !strings.Contains(n.Advice, "stop") {
			t.Errorf("%s, the %s, says %q", n.Name, n.Role, n.Advice)
		}
	}
	await(t, db, "the log", func() bool {
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "level=ERROR") && strings.Contains(line, "node="+rival.Addr()) && strings.Contains(line, "same timeline") {
				return true
			}
		}
		return false
	})
	if counter(t, reg, "db_node_up", "node", rival.Addr(), "role", "rival") != 1 || counter(t, reg, "scaleaware_background_errors_total", "task", "role") == 0 {
		t.Error("the metrics do not tell")
	}
	before := counter(t, reg, "db_reads_total", "node", rival.Addr())
	_, err = db.Exec(ctx, "insert into t values (1)")
	for what, err := range map[string]error{"a statement": err, "a transaction": tx.Commit(ctx), "Ready": db.Ready(ctx)} {
		if !errors.Is(err, dbsplit.ErrTwoPrimaries) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for range 20 {
		if n := get[int](t, ctx, db.Read(), "select count(*)::int from t"); n != 0 {
			t.Fatalf("%d rows were written while nobody knew where to", n)
		}
	}
	if counter(t, reg, "db_reads_total", "node", rival.Addr()) != before {
		t.Error("the rival was read from")
	}

	// It has missed what the primary has committed, so it takes no writes when that is away.
	c.Primary().Kill()
	await(t, db, "Ready to fail", func() bool { return db.Ready(ctx) != nil })
	if err := db.Ready(ctx); err != nil && !strings.Contains(err.Error(), "same timeline") {
		t.Errorf("Ready: %v", err)
	}
	if _, err := db.Exec(ctx, "insert into t values (2)"); err == nil {
		t.Error("the rival took a write")
	}
	must(t, c.Primary().Start(ctx))
	must(t, rival.Stop(ctx))
	await(t, db, "the end of the contest", func() bool { return db.Ready(ctx) == nil && db.Nodes()[0].Advice == "" })
	db.Reset() // idle connections are from before the primary was killed
	exec(t, db, "insert into t values (3)")
	if n := get[int](t, ctx, db, "select count(*)::int from t"); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

// A write that waits for a connection while the contest begins is not sent when it has one.
func TestTwoPrimariesWhileAWriteWaits(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	reg := prometheus.NewRegistry()
	db := run(t, nodesOf(c, "postgres"), &dbsplit.Options{MaxConns: 1, Registerer: reg})
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	exec(t, db, "create table t (n int)")
	rival := c.Replica(0)
	must(t, rival.WaitCaughtUp(ctx))
	holder, err := db.Begin(ctx)
	must(t, err)
	defer holder.Rollback(context.Background())
	result := make(chan error, 1)
	go func() {
		_, err := db.Exec(ctx, "insert into t values (1)")
		result <- err
	}()
	await(t, db, "the write to wait", func() bool {
		return counter(t, reg, "db_pool_waiters", "role", "primary") == 1
	})
	must(t, rival.Stop(ctx))
	must(t, os.Remove(filepath.Join(rival.Dir(), "standby.signal")))
	must(t, rival.Start(ctx))
	await(t, db, "the contest", func() bool { return errors.Is(db.Ready(ctx), dbsplit.ErrTwoPrimaries) })
	must(t, holder.Rollback(ctx))
	if err := <-result; !errors.Is(err, dbsplit.ErrTwoPrimaries) {
		t.Errorf("%v, want ErrTwoPrimaries", err)
	}
}

// Both replicas are promoted while nobody looks.
func TestTwoPromotedToOneTimeline(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 2})
	must(t, err)
	defer c.Close()
	db, err := dbsplit.Open(ctx, nodesOf(c, "postgres"), nil)
	must(t, err)
	defer db.Close()
	stop := start(t, db)
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	stop()
	c.Primary().Kill()
	for _, r := range c.Servers()[1:] {
		must(t, r.Promote(ctx))
	}
	defer start(t, db)()

	await(t, db, "the tie", func() bool {
		n := db.Nodes()
		return n[1].Role == "rival" && n[2].Role == "rival" && strings.Contains(n[0].Advice, "stop all of them but one")
	})
	if err := db.Ready(ctx); err == nil || !strings.Contains(err.Error(), "stop all of them but one") {
		t.Errorf("Ready: %v", err)
	}
	if _, err := db.Exec(ctx, "create table t (n int)"); err == nil {
		t.Error("one of the two was guessed to be the primary")
	}
	must(t, c.Replica(1).Stop(ctx))
	await(t, db, "writes to move", func() bool { return db.Ready(ctx) == nil })
	exec(t, db, "create table t (n int)")
	if n := db.Nodes(); n[1].Role != "primary" || n[1].Advice != "" {
		t.Errorf("the survivor is %+v", n[1])
	}
}
