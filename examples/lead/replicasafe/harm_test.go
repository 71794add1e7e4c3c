package replicasafe

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What the check warns of happens: a lock of a migration that has not even committed stops new reads on a replica, and a
// read that runs there is cancelled for it. The index that is built CONCURRENTLY does neither.
func TestTheHarmIsReal(t *testing.T) {
	pg := postgres.Get(t)
	database := pg.Database(t)
	primary, migration := session(t, pg.Primary().URL(database)), session(t, pg.Primary().URL(database))
	reader, other := session(t, pg.Replica(0).URL(database)), session(t, pg.Replica(0).URL(database))
	run(t, primary, `CREATE TABLE lead (id int, email text)`, `INSERT INTO lead SELECT n, 'x' FROM generate_series(1, 100) n`)
	caughtUp := func() {
		t.Helper()
		if err := pg.Replica(0).WaitCaughtUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	caughtUp()

	run(t, reader, `BEGIN`, `SELECT count(*) FROM lead`)
	run(t, migration, `CREATE INDEX CONCURRENTLY lead_email ON lead (email)`)
	caughtUp()
	run(t, reader, `SELECT count(*) FROM lead`)
	run(t, other, `SET lock_timeout = '2s'`, `SELECT count(*) FROM lead`)

	run(t, migration, `BEGIN`, `ALTER TABLE lead ADD COLUMN score int`)
	run(t, primary, `SELECT pg_switch_wal()`) // what is not committed is else sent at leisure
	var err error
	for ctx := t.Context(); err == nil && ctx.Err() == nil; { // the lock is on its way
		_, err = reader.Exec(ctx, `SELECT count(*) FROM lead`)
	}
	if state(err) != "40001" && state(err) != "40P01" && state(err) != "57P01" {
		t.Errorf("the running read: %v, want it cancelled by a conflict with recovery", err)
	}
	_, err = other.Exec(t.Context(), `SELECT count(*) FROM lead`)
	if state(err) != "55P03" {
		t.Errorf("a new read: %v, want it to wait for the lock until it gives up", err)
	}
	run(t, migration, `ROLLBACK`)
}

func session(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		defer cancel()
		conn.Close(ctx)
	})
	return conn
}

func run(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func state(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}
