package dbsplit_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// swallowedSQL are writes through database/sql whose last answer is lost. What is exchanged before it is let through.
var swallowedSQL = map[string]func(ctx context.Context, p *faultconn.Proxy, db *sql.DB, insert string) error{
	"Exec": func(ctx context.Context, p *faultconn.Proxy, db *sql.DB, insert string) error {
		p.Blackhole(faultconn.ToClient)
		_, err := db.ExecContext(ctx, insert, pgx.QueryExecModeSimpleProtocol)
		return err
	},
	"QueryRow": func(ctx context.Context, p *faultconn.Proxy, db *sql.DB, insert string) error {
		p.Blackhole(faultconn.ToClient)
		return db.QueryRowContext(ctx, insert, pgx.QueryExecModeSimpleProtocol).Scan(new(int))
	},
	"a prepared statement": func(ctx context.Context, p *faultconn.Proxy, db *sql.DB, insert string) error {
		stmt, err := db.PrepareContext(ctx, insert)
		if err != nil {
			return err
		}
		defer stmt.Close()
		p.Blackhole(faultconn.ToClient)
		_, err = stmt.ExecContext(ctx)
		return err
	},
	"a sql.Conn": func(ctx context.Context, p *faultconn.Proxy, db *sql.DB, insert string) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.PingContext(ctx); err != nil {
			return err
		}
		p.Blackhole(faultconn.ToClient)
		_, err = conn.ExecContext(ctx, insert)
		if _, again := conn.ExecContext(ctx, insert); again == nil || errors.Is(again, dbsplit.ErrOutcomeUnknown) {
			return fmt.Errorf("another statement in the lost session: %v", again) // not to be taken for err
		}
		return err
	},
	"a transaction": func(ctx context.Context, p *faultconn.Proxy, db *sql.DB, insert string) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, insert); err != nil {
			return err
		}
		p.Blackhole(faultconn.ToClient)
		return tx.Commit()
	},
}

// database/sql repeats what fails with driver.ErrBadConn. The key of each write is new whenever it is sent, so that
// a repetition would add a row.
func TestSQLOutcomeUnknown(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	p, through := proxied(t, c.Primary(), database)
	direct := open(t, dbsplit.Nodes{Primary: c.Primary().URL(database)}, nil)
	db := openSQL(t, open(t, dbsplit.Nodes{Primary: through}, nil).Connector())
	exec(t, direct, "create table ledger (id serial primary key)")
	const insert, count = "insert into ledger default values returning id", "select count(*)::int from ledger"
	ctx := within(t, 30*time.Second)
	rows := 0
	for name, write := range swallowedSQL {
		must(t, db.PingContext(ctx))
		rows++
		cut := make(chan struct{})
		go func() {
			defer close(cut)
			await(t, direct, "the row of "+name, func() bool { return get[int](t, ctx, direct, count) >= rows })
			p.Cut()
			p.Heal()
		}()
		err := write(ctx, p, db, insert)
		<-cut
		if !errors.Is(err, dbsplit.ErrOutcomeUnknown) {
			t.Errorf("%s: %v", name, err)
		}
		if n := get[int](t, ctx, direct, count); n != rows {
			t.Fatalf("%s: %d rows after %d writes: it was sent again", name, n, rows)
		}
	}
	sqlExec(t, ctx, db, insert)
}

// A backend ends under a write, after it has inserted.
func TestSQLBackendKilled(t *testing.T) {
	db, _, _ := settled(t, nil)
	ctx := within(t, 30*time.Second)
	all := openSQL(t, db.Connector())
	exec(t, db, "create table ledger (id int primary key)")
	exec(t, db, "create sequence sent")
	exec(t, db, `create function suicide() returns trigger language plpgsql as $$ begin
		perform nextval('sent'), pg_terminate_backend(pg_backend_pid()); perform pg_sleep(10); return new; end $$`)
	exec(t, db, "create trigger suicide after insert on ledger for each row execute function suicide()")
	const insert = "insert into ledger values ($1) returning id"
	if _, err := all.ExecContext(ctx, insert, 1); !errors.Is(err, dbsplit.ErrOutcomeUnknown) {
		t.Errorf("Exec: %v", err)
	}
	if err := all.QueryRowContext(ctx, insert, 2).Scan(new(int)); !errors.Is(err, dbsplit.ErrOutcomeUnknown) {
		t.Errorf("QueryRow: %v", err)
	}
	tx, err := all.BeginTx(ctx, nil)
	must(t, err)
	if _, err := tx.ExecContext(ctx, insert, 3); err == nil || errors.Is(err, dbsplit.ErrOutcomeUnknown) {
		t.Errorf("a statement of a transaction that cannot commit any more: %v", err)
	}
	if err := tx.Commit(); err == nil || errors.Is(err, dbsplit.ErrOutcomeUnknown) {
		t.Errorf("its commit: %v", err)
	}
	if n := sqlGet[int](t, ctx, all, "select nextval('sent')"); n != 4 {
		t.Errorf("3 writes were sent %d times", n-1)
	}
	if n := sqlGet[int](t, ctx, all, "select count(*) from ledger"); n != 0 {
		t.Errorf("%d rows were committed", n)
	}
}

// The same handle, prepared statements and all, works on the promoted server; what began on the old one ends.
func TestSQLFailover(t *testing.T) {
	t.Parallel()
	ctx := within(t, 90*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	db := run(t, nodesOf(c, "postgres"), nil)
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	exec(t, db, "create table ledger (id int primary key)")
	all := openSQL(t, db.Connector())
	stmt, err := all.PrepareContext(ctx, "insert into ledger values ($1)")
	must(t, err)
	defer stmt.Close()
	_, err = stmt.ExecContext(ctx, 1)
	must(t, err)
	conn, err := all.Conn(ctx)
	must(t, err)
	defer conn.Close()
	sqlExec(t, ctx, conn, "insert into ledger values (2)")
	tx, err := all.BeginTx(ctx, nil)
	must(t, err)
	defer tx.Rollback()
	sqlExec(t, ctx, tx, "insert into ledger values (3)")

	must(t, c.Replica(0).WaitCaughtUp(ctx))
	must(t, c.Replica(0).Promote(ctx)) // the old primary lives on
	await(t, db, "writes to move", func() bool { return db.Nodes()[1].Role == "primary" })
	if err := tx.Commit(); !errors.Is(err, dbsplit.ErrNotPrimary) {
		t.Errorf("a transaction on the old primary: %v", err)
	}
	if _, err := conn.ExecContext(ctx, "insert into ledger values (4)"); !errors.Is(err, dbsplit.ErrNotPrimary) {
		t.Errorf("a session on the old primary: %v", err)
	}
	_, err = stmt.ExecContext(ctx, 5)
	must(t, err)
	if ids := sqlGet[string](t, ctx, all, "select string_agg(id::text, ' ' order by id) from ledger"); ids != "1 2 5" {
		t.Errorf("rows %s, want 1 2 5", ids)
	}
}
