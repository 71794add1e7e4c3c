package dbsplit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// A write in a batch of reads, or below a savepoint, is told as everywhere.
func TestWriteInReadIsToldEverywhere(t *testing.T) {
	ctx := within(t, 30*time.Second)
	db, c, _ := settled(t, &dbsplit.Options{MaxConns: 24})
	exec(t, db, "create table t (n int)")
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	const insert = "insert into t values (1) returning n"
	sends := map[string]func(ctx context.Context, b *pgx.Batch) pgx.BatchResults{
		"Read": db.Read().SendBatch,
		"a transaction": func(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
			return readTxOf(t, ctx, db).SendBatch(ctx, b)
		},
		"a savepoint": func(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
			tx, err := readTxOf(t, ctx, db).Begin(ctx)
			must(t, err)
			return tx.SendBatch(ctx, b)
		},
	}
	for where, send := range sends {
		for how, ask := range map[string]func(results pgx.BatchResults) error{
			"Exec":     func(results pgx.BatchResults) error { _, err := results.Exec(); return err },
			"QueryRow": func(results pgx.BatchResults) error { return results.QueryRow().Scan(new(int)) },
			"Query": func(results pgx.BatchResults) error {
				rows, err := results.Query()
				if err == nil {
					rows.Close()
					err = rows.Err()
				}
				return err
			},
			"Close": func(results pgx.BatchResults) error { return results.Close() },
		} {
			var b pgx.Batch
			b.Queue(insert)
			results := send(ctx, &b)
			if err := ask(results); !errors.Is(err, dbsplit.ErrWriteInRead) {
				t.Errorf("%s, SendBatch, %s: %v", where, how, err)
			}
			_ = results.Close()
		}
	}
	for how, write := range map[string]func(tx pgx.Tx) error{
		"Exec":     func(tx pgx.Tx) error { _, err := tx.Exec(ctx, insert); return err },
		"QueryRow": func(tx pgx.Tx) error { return tx.QueryRow(ctx, insert).Scan(new(int)) },
		"CopyFrom": func(tx pgx.Tx) error {
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"n"}, pgx.CopyFromRows([][]any{{1}}))
			return err
		},
	} {
		tx := readTxOf(t, ctx, db)
		if err := write(tx); !errors.Is(err, dbsplit.ErrWriteInRead) {
			t.Errorf("a transaction, %s: %v", how, err)
		}
		savepoint, err := readTxOf(t, ctx, db).Begin(ctx)
		must(t, err)
		if err := write(savepoint); !errors.Is(err, dbsplit.ErrWriteInRead) {
			t.Errorf("a savepoint, %s: %v", how, err)
		}
		if err := savepoint.Rollback(ctx); err != nil {
			t.Errorf("its rollback: %v", err)
		}
		second, err := savepoint.Begin(ctx)
		if !errors.Is(err, pgx.ErrTxClosed) {
			t.Errorf("a savepoint in one that has ended: %v, %v", second, err)
		}
	}
}

// readTxOf opens a transaction for reads that the test's end rolls back.
func readTxOf(t testing.TB, ctx context.Context, db *dbsplit.DB) pgx.Tx {
	t.Helper()
	tx, err := db.Read().Begin(ctx)
	must(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}
