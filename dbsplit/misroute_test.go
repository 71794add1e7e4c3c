package dbsplit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgbouncer"
)

// misrouted are ways to write through Read.
var misrouted = map[string]struct {
	operation string
	send      func(ctx context.Context, read *dbsplit.Reader, sql string) error
}{
	"Exec": {"Exec", func(ctx context.Context, read *dbsplit.Reader, sql string) error {
		_, err := read.Exec(ctx, sql)
		return err
	}},
	"Exec with arguments": {"ExecArgs", func(ctx context.Context, read *dbsplit.Reader, sql string) error {
		_, err := read.Exec(ctx, sql+" where $1", true)
		return err
	}},
	"QueryRow": {"QueryRow", func(ctx context.Context, read *dbsplit.Reader, sql string) error {
		return read.QueryRow(ctx, sql).Scan(new(int))
	}},
	"Query": {"Query", func(ctx context.Context, read *dbsplit.Reader, sql string) error {
		rows, _ := read.Query(ctx, sql)
		_, err := pgx.CollectRows(rows, pgx.RowTo[int])
		return err
	}},
	"a transaction": {"InTx", func(ctx context.Context, read *dbsplit.Reader, sql string) error {
		return pgx.BeginFunc(ctx, read, func(tx pgx.Tx) error { _, err := tx.Exec(ctx, sql); return err })
	}},
	"a batch": {"Batch", func(ctx context.Context, read *dbsplit.Reader, sql string) error {
		b := new(pgx.Batch)
		b.Queue("-- name: Before :one\nselect 1")
		b.Queue(sql)
		b.Queue("-- name: After :one\nselect 1")
		return read.SendBatch(ctx, b).Close()
	}},
	"CopyFrom": {"copy", func(ctx context.Context, read *dbsplit.Reader, _ string) error {
		_, err := read.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"n"}, pgx.CopyFromRows([][]any{{1}}))
		return err
	}},
	"without a name": {"unnamed", func(ctx context.Context, read *dbsplit.Reader, _ string) error {
		_, err := read.Exec(ctx, "insert into t values (1)")
		return err
	}},
}

// What is sent through Read and writes is counted by its name, once each time, on a replica and on the primary, and behind a
// pooler: it is the list of what has to move. What the gate refuses is none of it.
func TestMisroutesAreCounted(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	for name, params := range map[string]string{"direct": "", "behind a pooler": "&node_pooler=transaction"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := c.Database(t)
			nodes := nodesOf(c, database)
			if params != "" {
				nodes, _ = behind(t, c, database, params, pgbouncer.Options{Mode: pgbouncer.Transaction})
			}
			ctx := within(t, 60*time.Second)
			var closed gate
			reg := prometheus.NewRegistry()
			db := run(t, nodes, &dbsplit.Options{Registerer: reg, Gate: &closed})
			await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
			exec(t, db, "create table t (n int); create sequence s")
			for _, r := range c.Servers()[1:] {
				must(t, r.WaitCaughtUp(ctx))
			}
			const series = "db_misroutes_total"
			for _, read := range []*dbsplit.Reader{db.Read(), db.Read(dbsplit.PreferPrimary())} {
				for way, m := range misrouted {
					before, all := counter(t, reg, series, "db", "db", "operation", m.operation), counter(t, reg, series)
					sql := fmt.Sprintf("-- name: %s :one\nselect nextval('s')::int", m.operation)
					if err := m.send(ctx, read, sql); !errors.Is(err, dbsplit.ErrWriteInRead) {
						t.Errorf("%s: %v", way, err)
					}
					if n := counter(t, reg, series, "db", "db", "operation", m.operation) - before; n != 1 {
						t.Errorf("%s: counted %v times as %s", way, n, m.operation)
					}
					if n := counter(t, reg, series) - all; n != 1 {
						t.Errorf("%s: counted %v times", way, n)
					}
				}
			}
			before := counter(t, reg, series)
			closed.set(errMaintenance)
			for range 3 {
				if _, err := db.Exec(ctx, "-- name: Refused :exec\ninsert into t values (1)"); !errors.Is(err, errMaintenance) {
					t.Errorf("a write that the gate refuses: %v", err)
				}
			}
			closed.set(nil)
			if n := counter(t, reg, series) - before; n != 0 {
				t.Errorf("%v writes that the gate has refused were counted", n)
			}
			for i := range 250 {
				_, _ = db.Read().Exec(ctx, fmt.Sprintf("-- name: Write%d :exec\ninsert into t values (1)", i))
			}
			if n := counter(t, reg, series) - before; n != 250 {
				t.Errorf("%v of 250 were counted", n)
			}
			if n := counter(t, reg, series, "operation", "other"); n < 40 || n > 60 {
				t.Errorf("%v count as others", n)
			}
		})
	}
}
