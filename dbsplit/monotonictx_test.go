package dbsplit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// oneBehind runs a DB with MonotonicReads whose first replica, but not the second, lacks the one row that there is.
func oneBehind(t *testing.T) (*dbsplit.DB, *pgcluster.Cluster) {
	t.Helper()
	db, c, _ := settled(t, &dbsplit.Options{MonotonicReads: true})
	notes(t, db)
	for _, s := range c.Servers()[1:] {
		must(t, s.WaitCaughtUp(t.Context()))
	}
	must(t, c.Replica(0).PauseReplay(t.Context()))
	t.Cleanup(func() { must(t, c.Replica(0).ResumeReplay(context.Background())) })
	exec(t, db, "insert into notes values (1)")
	must(t, c.Replica(1).WaitCaughtUp(t.Context()))
	return db, c
}

// What a read transaction has seen counts for reads beside it while it is still open.
func TestMonotonicReadsBesideATransaction(t *testing.T) {
	db, c := oneBehind(t)
	ctx, _ := scaleaware.WithWatermark(within(t, 30*time.Second))
	const count = "select count(*)::int from notes"
	tx, err := db.Read(dbsplit.OnNode(c.Replica(1).Addr())).Begin(ctx)
	must(t, err)
	defer tx.Rollback(ctx) //nolint:errcheck // a test's
	if n := get[int](t, ctx, tx, count); n != 1 {
		t.Fatalf("the replica that replays has %d rows", n)
	}
	for range 50 {
		if n := get[int](t, ctx, db.Read(), count); n != 1 {
			t.Fatalf("beside the transaction a read finds %d rows", n)
		}
	}
}

// So does what a batch has shown, and a transaction below another one, whichever way it was shown.
func TestMonotonicReadsBesideBatchesAndSavepoints(t *testing.T) {
	db, c := oneBehind(t)
	ahead, behind := db.Read(dbsplit.OnNode(c.Replica(1).Addr())), db.Read(dbsplit.OnNode(c.Replica(0).Addr()), dbsplit.WaitForReplica(-1))
	const count = "select count(*)::int from notes"
	batch := func() *pgx.Batch {
		var b pgx.Batch
		b.Queue(count)
		b.Queue("select 1") // what comes after is not awaited
		return &b
	}
	byRow := func(results pgx.BatchResults) (n int, err error) { return n, results.QueryRow().Scan(&n) }
	byRows := func(results pgx.BatchResults) (int, error) {
		rows, err := results.Query()
		if err != nil {
			return 0, err
		}
		return pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	}
	for name, show := range map[string]func(ctx context.Context, tx pgx.Tx) (n int, end func() error, err error){
		"a batch, QueryRow": func(ctx context.Context, _ pgx.Tx) (int, func() error, error) {
			results := ahead.SendBatch(ctx, batch())
			n, err := byRow(results)
			return n, results.Close, err
		},
		"a batch, Query": func(ctx context.Context, _ pgx.Tx) (int, func() error, error) {
			results := ahead.SendBatch(ctx, batch())
			n, err := byRows(results)
			return n, results.Close, err
		},
		"a batch, Exec": func(ctx context.Context, _ pgx.Tx) (int, func() error, error) {
			results := ahead.SendBatch(ctx, batch())
			tag, err := results.Exec()
			return int(tag.RowsAffected()), results.Close, err
		},
		"a batch in a transaction": func(ctx context.Context, tx pgx.Tx) (int, func() error, error) {
			results := tx.SendBatch(ctx, batch())
			n, err := byRow(results)
			return n, results.Close, err
		},
		"a batch in a transaction, Close": func(ctx context.Context, tx pgx.Tx) (int, func() error, error) {
			var n int
			var b pgx.Batch
			b.Queue(count).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
			results := tx.SendBatch(ctx, &b)
			err := results.Close()
			return n, results.Close, err
		},
		"a savepoint": func(ctx context.Context, tx pgx.Tx) (int, func() error, error) {
			savepoint, err := tx.Begin(ctx)
			must(t, err)
			return get[int](t, ctx, savepoint, count), func() error { return savepoint.Commit(ctx) }, nil
		},
	} {
		ctx, _ := scaleaware.WithWatermark(within(t, 20*time.Second))
		tx, err := ahead.Begin(ctx)
		must(t, err)
		n, end, err := show(ctx, tx)
		if err != nil || n != 1 {
			t.Errorf("%s: %d rows, %v", name, n, err)
		}
		var later int
		if err := behind.QueryRow(ctx, count).Scan(&later); !errors.Is(err, dbsplit.ErrNoNode) {
			t.Errorf("%s: after 1 row the same session was shown %d, %v", name, later, err)
		}
		if err := end(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		must(t, tx.Rollback(ctx))
	}
}
