package dbsplit_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgbouncer"
)

// A transaction that a batch begins is refused as any other is, and other batches still read.
func TestGateStopsTransactionsOfBatches(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	pooled, _ := behind(t, c, database, "&node_pooler=transaction", pgbouncer.Options{Mode: pgbouncer.Transaction})
	exec(t, open(t, nodesOf(c, database), nil), "create table t (n int)")
	for name, nodes := range map[string]dbsplit.Nodes{"direct": nodesOf(c, database), "pooled": pooled} {
		ctx := within(t, 30*time.Second)
		g := new(gate)
		db := open(t, nodes, &dbsplit.Options{Gate: g})
		batch := func(o *pgx.TxOptions, sql string) *pgx.Batch {
			var b pgx.Batch
			if o != nil {
				b.BeginTx(*o)
			}
			b.Queue(sql)
			return &b
		}
		g.set(errMaintenance)
		for _, o := range []pgx.TxOptions{{}, {AccessMode: pgx.ReadWrite}, {BeginQuery: "start transaction read write"}} {
			results := db.SendBatch(ctx, batch(&o, "insert into t values (1)"))
			if err := results.Close(); !errors.Is(err, errMaintenance) {
				t.Errorf("%s: a batch with %+v: %v", name, o, err)
			}
			if err := results.Tx().Commit(ctx); !errors.Is(err, pgx.ErrTxClosed) {
				t.Errorf("%s: its commit: %v", name, err)
			}
		}
		if err := db.SendBatch(ctx, batch(nil, "insert into t values (1)")).Close(); !errors.Is(err, errMaintenance) {
			t.Errorf("%s: a batch that writes: %v", name, err)
		}
		results := db.SendBatch(ctx, batch(nil, "select count(*)::int from t"))
		n := -1
		if err := results.QueryRow().Scan(&n); err != nil || n != 0 {
			t.Errorf("%s: %d rows, %v", name, n, err)
		}
		must(t, results.Close())
	}
}

// Idle connections can write, so they are for nobody while the gate is closed.
func TestGateStopsAcquireAllIdle(t *testing.T) {
	c := shared.Get(t)
	g := new(gate)
	db := open(t, nodesOf(c, c.Database(t)), &dbsplit.Options{Gate: g})
	ctx := within(t, 20*time.Second)
	idle := func() {
		exec(t, db, "select 1")
		await(t, db, "an idle connection", func() bool { return db.Writing() == 0 })
	}
	idle()
	g.set(errMaintenance)
	if n := acquireAllIdle(ctx, db); n != 0 {
		t.Errorf("%d connections while the gate is closed", n)
	}
	g.set(nil)
	idle()
	if acquireAllIdle(ctx, db) == 0 {
		t.Error("no connections while the gate is open: this test tests nothing")
	}
}

// acquireAllIdle counts the connections that AcquireAllIdle gives.
func acquireAllIdle(ctx context.Context, db *dbsplit.DB) int {
	conns := db.AcquireAllIdle(ctx)
	for _, conn := range conns {
		conn.Release()
	}
	return len(conns)
}

// Who gets the connection itself cannot be kept from writing through a pooler in transaction mode.
func TestGateStopsRawConnBehindPooler(t *testing.T) {
	ctx := within(t, 30*time.Second)
	c := shared.Get(t)
	g := new(gate)
	nodes, _ := behind(t, c, c.Database(t), "&node_pooler=transaction", pgbouncer.Options{Mode: pgbouncer.Transaction})
	db := open(t, nodes, &dbsplit.Options{Gate: g})
	exec(t, db, "create table t (n int)")
	all := openSQL(t, db.Connector())
	conn, err := all.Conn(ctx)
	must(t, err)
	defer conn.Close()
	insert := func(raw *pgx.Conn) error { _, err := raw.Exec(ctx, "insert into t values (1)"); return err }
	g.set(errMaintenance)
	if err := dbsplit.RawConn(ctx, conn, insert); !errors.Is(err, errMaintenance) {
		t.Errorf("RawConn behind the gate: %v", err)
	}
	if n := sqlGet[int](t, ctx, conn, "select count(*) from t"); n != 0 {
		t.Errorf("%d rows", n)
	}
	g.set(nil)
	later, err := all.Conn(ctx)
	must(t, err)
	defer later.Close()
	must(t, dbsplit.RawConn(ctx, later, insert))
}

// A gate that closes while idle connections are on their way finds none of them in use afterwards.
func TestGateIsAskedAgainWithIdleConnections(t *testing.T) {
	c := shared.Get(t)
	g := new(countedGate)
	db := open(t, nodesOf(c, c.Database(t)), &dbsplit.Options{Gate: g})
	exec(t, db, "select 1")
	await(t, db, "an idle connection", func() bool { return db.Writing() == 0 })
	g.left.Store(1)
	g.closes.Store(true)
	if n := acquireAllIdle(within(t, 20*time.Second), db); n != 0 {
		t.Errorf("%d connections", n)
	}
	await(t, db, "the connections", func() bool { return db.Writing() == 0 })
}

// countedGate lets left questions pass when it closes.
type countedGate struct {
	closes atomic.Bool
	left   atomic.Int64
}

func (g *countedGate) AllowWrite(context.Context) error {
	if g.closes.Load() && g.left.Add(-1) < 0 {
		return errMaintenance
	}
	return nil
}
