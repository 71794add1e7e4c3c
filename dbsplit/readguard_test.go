package dbsplit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgbouncer"
)

// A transaction of Read is read-only however it is begun.
func TestReadTransactionsCannotBeMadeWritable(t *testing.T) {
	for name, open := range map[string]func() *dbsplit.DB{
		"direct": func() *dbsplit.DB { db, _, _ := settled(t, nil); return db },
		"pooled": func() *dbsplit.DB {
			db, _, _ := pooled(t, pgbouncer.Transaction, "&node_pooler=transaction", nil)
			return db
		},
		"pooled, the simple protocol": func() *dbsplit.DB {
			db, _, _ := pooled(t, pgbouncer.Transaction, "&node_pooler=transaction&default_query_exec_mode=simple_protocol", nil)
			return db
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, 30*time.Second)
			db := open()
			exec(t, db, "create table t (n int)")
			read := db.Read(dbsplit.PreferPrimary())
			for _, o := range []pgx.TxOptions{
				{}, {BeginQuery: "begin"}, {BeginQuery: "begin read write"}, {BeginQuery: "begin -- by hand"},
				{BeginQuery: "begin; set local lock_timeout = 1000"}, {IsoLevel: pgx.RepeatableRead},
			} {
				tx, err := read.BeginTx(ctx, o)
				must(t, err)
				defer tx.Rollback(ctx)
				if n := get[int](t, ctx, tx, "select 1"); n != 1 {
					t.Errorf("%+v: %d", o, n)
				}
				if _, err := tx.Exec(ctx, "insert into t values (1)"); !errors.Is(err, dbsplit.ErrWriteInRead) {
					t.Errorf("a write after %+v: %v", o, err)
				}
				must(t, tx.Rollback(ctx))
			}
			for _, o := range []pgx.TxOptions{
				{}, {AccessMode: pgx.ReadWrite}, {AccessMode: pgx.ReadOnly}, {IsoLevel: pgx.RepeatableRead}, {BeginQuery: "start transaction read write"},
			} {
				readBatchTx(t, read, o)
			}
			if n := get[int](t, ctx, db, "select count(*)::int from t"); n != 0 {
				t.Errorf("%d writes got through", n)
			}
		})
	}
}

// readBatchTx begins transactions in batches.
func readBatchTx(t *testing.T, read *dbsplit.Reader, o pgx.TxOptions) {
	t.Helper()
	ctx := within(t, 20*time.Second)
	batch := func(sql ...string) *pgx.Batch {
		var b pgx.Batch
		b.BeginTx(o)
		for _, s := range sql {
			b.Queue(s)
		}
		return &b
	}
	writes := read.SendBatch(ctx, batch("insert into t values (1)"))
	defer abandon(writes)
	if err := writes.Close(); !errors.Is(err, dbsplit.ErrWriteInRead) {
		t.Errorf("a batch after %+v: %v", o, err)
	}
	must(t, writes.Tx().Rollback(ctx))

	// All results are in their places, and the transaction goes on read-only.
	results := read.SendBatch(ctx, batch("select 1", "select 2", "select 3"))
	defer abandon(results)
	tag, err := results.Exec()
	must(t, err)
	var first, second int
	must(t, results.QueryRow().Scan(&first))
	rows, err := results.Query()
	must(t, err)
	second, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	must(t, err)
	must(t, results.Close())
	if first != 1 || second != 2 || tag.RowsAffected() != 0 || tag.Select() {
		t.Errorf("%+v: %q, %d, %d", o, tag, first, second)
	}
	tx := results.Tx()
	if _, err := tx.Exec(ctx, "insert into t values (1)"); !errors.Is(err, dbsplit.ErrWriteInRead) {
		t.Errorf("a write in the transaction of a batch with %+v: %v", o, err)
	}
	must(t, tx.Rollback(ctx))

	// By functions of the queries, as Close calls them.
	got := 0
	b := batch()
	b.Queue("select 4").QueryRow(func(row pgx.Row) error { return row.Scan(&got) })
	results = read.SendBatch(ctx, b)
	if err := results.Close(); err != nil || got != 4 {
		t.Errorf("%+v: %d, %v", o, got, err)
	}
	must(t, results.Tx().Commit(ctx))
}

// abandon gives back what a batch holds, also when a test fails.
func abandon(results pgx.BatchResults) {
	_ = results.Close()
	_ = results.Tx().Rollback(context.Background())
}

// What makes a transaction read-only takes no snapshot over a direct connection, so that it can still be given one.
func TestReadTransactionsCanBeGivenASnapshot(t *testing.T) {
	ctx := within(t, 30*time.Second)
	db, _, _ := settled(t, nil)
	read := db.Read(dbsplit.PreferPrimary())
	first, err := read.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	must(t, err)
	defer first.Rollback(ctx)
	name := get[string](t, ctx, first, "select pg_export_snapshot()")
	tx, err := read.BeginTx(ctx, pgx.TxOptions{BeginQuery: "begin isolation level repeatable read"})
	must(t, err)
	defer tx.Rollback(ctx)
	exec(t, tx, "set transaction snapshot '"+name+"'")
	if n := get[int](t, ctx, tx, "select 1"); n != 1 {
		t.Error(n)
	}
}
