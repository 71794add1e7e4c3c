package dbsplit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
)

// Without PoolWait each of these calls would wait for its context, which here is longer than the test.
func TestPoolWait(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	db := run(t, nodesOf(c, database), &dbsplit.Options{MaxConns: 1, PoolWait: time.Second})
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	ctx := within(t, time.Minute)
	await(t, db, "the writer's connection", func() bool { _, err := db.Exec(ctx, "select 1"); return err == nil })
	saturated := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, dbsplit.ErrSaturated) {
			t.Errorf("%s: %v, want ErrSaturated", what, err)
		}
	}
	node := db.Nodes()[1].Name
	reader := db.Read(dbsplit.OnNode(node))
	await(t, db, "the reader's connection", func() bool { return reader.QueryRow(ctx, "select 1").Scan(nil) == nil })
	rows, err := reader.Query(ctx, "select generate_series(1, 1000000)")
	must(t, err)
	defer rows.Close()
	_, err = reader.Query(ctx, "select 1")
	saturated("a read of a replica in use", err)

	err = db.InTx(ctx, func(pgx.Tx) error {
		_, err := db.Exec(ctx, "select 1")
		saturated("a write", err)
		_, err = db.Begin(ctx)
		saturated("a transaction", err)
		return nil
	})
	must(t, err)
	exec(t, db, "select 1") // free again
	rows.Close()
	must(t, reader.QueryRow(ctx, "select 1").Scan(nil))
	for _, n := range db.Nodes() {
		if !n.Up {
			t.Errorf("%s counts as down, and was only busy", n.Name)
		}
	}
}

// Before the first probe nothing is known of a server, so a connection that hangs is not taken for others' being in use.
func TestPoolWaitBeforeTheFirstProbe(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	p, through := proxied(t, c.Primary(), c.Database(t))
	p.Blackhole(faultconn.Both)
	db := open(t, dbsplit.Nodes{Primary: through}, &dbsplit.Options{MaxConns: 1, PoolWait: time.Millisecond, FailoverWait: -1, ConnectTimeout: 200 * time.Millisecond})
	_, err := db.Exec(within(t, time.Minute), "select 1")
	if err == nil || errors.Is(err, dbsplit.ErrSaturated) {
		t.Errorf("a write to a silent server: %v, want what is wrong with it", err)
	}
}

// A server that cannot be connected to is not a busy one: the caller waits for the failover, and learns why in the end.
func TestPoolWaitIsNotForDeadServers(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	p, through := proxied(t, c.Primary(), c.Database(t))
	db := run(t, dbsplit.Nodes{Primary: through}, &dbsplit.Options{MaxConns: 1, PoolWait: time.Millisecond, FailoverWait: -1})
	await(t, db, "the primary", func() bool { return db.Nodes()[0].Up })
	p.Refuse()
	p.Reset()
	await(t, db, "the primary to be down", func() bool { return !db.Nodes()[0].Up })
	_, err := db.Exec(within(t, time.Minute), "select 1")
	if err == nil || errors.Is(err, dbsplit.ErrSaturated) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a write to a dead server: %v, want what is wrong with it", err)
	}
}
