package dbsplit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
)

// The commit arrives, its answer does not.
func TestOutcomeUnknown(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	p, through := proxied(t, c.Primary(), database)
	db := open(t, dbsplit.Nodes{Primary: through}, nil)
	direct := open(t, dbsplit.Nodes{Primary: c.Primary().URL(database)}, nil)
	notes(t, direct)
	ctx := within(t, 30*time.Second)
	rows := 0
	for _, name := range []string{"Exec", "QueryRow", "Query", "InTx"} {
		must(t, db.Ping(ctx))
		rows++
		cut := make(chan struct{})
		go func() {
			defer close(cut)
			await(t, direct, "the row of "+name, func() bool { return get[int](t, ctx, direct, "select count(*)::int from notes") == rows })
			p.Cut()
			p.Heal()
		}()
		ctx, w := scaleaware.WithWatermark(ctx)
		err := swallowed[name](ctx, p, db)
		<-cut
		if !errors.Is(err, dbsplit.ErrOutcomeUnknown) {
			t.Errorf("%s: %v", name, err)
		}
		if written, err := w.Written(ctx); err != nil || len(written) != 1 {
			t.Errorf("%s left the watermark at %v, %v", name, written, err)
		}
	}
	if n := get[int](t, ctx, direct, "select count(*)::int from notes"); n != rows {
		t.Errorf("%d rows after %d writes: something was sent twice", n, rows)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	tx, err := db.Begin(ctx)
	must(t, err)
	exec(t, tx, "insert into notes values (1)")
	if err := tx.Commit(ended); err == nil || errors.Is(err, dbsplit.ErrOutcomeUnknown) {
		t.Errorf("a commit that was never sent: %v", err)
	}
	tx, err = db.Begin(ctx)
	must(t, err)
	p.Cut()
	if _, err := tx.Exec(ctx, "insert into notes values (1)"); err == nil || errors.Is(err, dbsplit.ErrOutcomeUnknown) {
		t.Errorf("a statement of a transaction that cannot commit any more: %v", err)
	}
	if err := tx.Commit(ctx); err == nil || errors.Is(err, dbsplit.ErrOutcomeUnknown) {
		t.Errorf("a commit on a connection that was lost before: %v", err)
	}
	p.Refuse()
	p.Cut()
	if _, err := db.Exec(ctx, "insert into notes values (1)"); err == nil {
		t.Error("a write without a connection succeeded")
	}
	if n := get[int](t, ctx, direct, "select count(*)::int from notes"); n != rows {
		t.Errorf("%d rows, want %d", n, rows)
	}
}

// swallowed are writes whose last answer is lost. Whatever is exchanged before is let through.
var swallowed = map[string]func(ctx context.Context, p *faultconn.Proxy, db *dbsplit.DB) error{
	"InTx": func(ctx context.Context, p *faultconn.Proxy, db *dbsplit.DB) error {
		return db.InTx(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into notes values (1)")
			p.Blackhole(faultconn.ToClient)
			return err
		})
	},
	"Exec": simple(func(ctx context.Context, db *dbsplit.DB, sql string) error {
		_, err := db.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		return err
	}),
	"QueryRow": simple(func(ctx context.Context, db *dbsplit.DB, sql string) error {
		return db.QueryRow(ctx, sql, pgx.QueryExecModeSimpleProtocol).Scan(nil)
	}),
	"Query": simple(func(ctx context.Context, db *dbsplit.DB, sql string) error {
		rows, err := db.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			return err
		}
		_, err = pgx.CollectRows(rows, pgx.RowTo[int])
		return err
	}),
}

// simple sends one message, so that only its answer can be lost.
func simple(write func(ctx context.Context, db *dbsplit.DB, sql string) error) func(context.Context, *faultconn.Proxy, *dbsplit.DB) error {
	return func(ctx context.Context, p *faultconn.Proxy, db *dbsplit.DB) error {
		p.Blackhole(faultconn.ToClient)
		return write(ctx, db, "insert into notes values (1) returning n")
	}
}
