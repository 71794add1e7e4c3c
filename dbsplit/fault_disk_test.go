package dbsplit_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// A write that finds no room on the primary's disk fails with the server's own error, is sent once and counts as not done; the node
// stays up and its session in use, other writes and all reads go on. When the log itself finds no room the server ends: then
// writes fail within FailoverWait, and reads are the replica's.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	ctx := within(t, 2*time.Minute)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	db := run(t, nodesOf(c, "postgres"), &dbsplit.Options{MaxConns: 1, FailoverWait: 300 * time.Millisecond})
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	exec(t, db, "create table long (t text); alter table long alter t set storage plain; create sequence tries; create table short (n int)")
	const grow = "with once as materialized (select nextval('tries')) insert into long select repeat('x', 4000) from once, generate_series(1, 5000)"
	exec(t, db, grow)
	session := get[int](t, ctx, db, "select pg_backend_pid()")

	must(t, c.Primary().FillDisk(16<<20))
	for try := int64(2); try < 5; try++ {
		var refused *pgconn.PgError
		if _, err := db.Exec(ctx, grow); !errors.As(err, &refused) || refused.Code != "XX000" || errors.Is(err, dbsplit.ErrOutcomeUnknown) {
			t.Errorf("a write without room: %v", err)
		}
		if n := get[int64](t, ctx, db, "select last_value from tries"); n != try {
			t.Fatalf("sent %d times, want %d", n, try)
		}
		exec(t, db, "insert into short values (1)")
		if s := served(t, ctx, db.Read()); s != "replica" {
			t.Errorf("a read was served by the %s", s)
		}
	}
	if now := get[int](t, ctx, db, "select pg_backend_pid()"); now != session || !db.Nodes()[0].Up {
		t.Errorf("session %d instead of %d, the primary is %+v", now, session, db.Nodes()[0])
	}

	must(t, c.Primary().FillDisk(1))
	_, err = db.Exec(ctx, "insert into short values (2)")
	if !errors.Is(err, dbsplit.ErrOutcomeUnknown) {
		t.Errorf("a commit for which the log has no room: %v", err)
	}
	await(t, db, "the primary to count as down", func() bool { return !db.Nodes()[0].Up })
	for range 20 {
		begun := time.Now()
		if _, err := db.Exec(ctx, "insert into short values (2)"); err == nil {
			t.Error("a write without a primary went well")
		}
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("it took %v to fail", took)
		}
		if s := served(t, ctx, db.Read()); s != "replica" {
			t.Errorf("a read was served by the %s", s)
		}
	}
	c.Primary().Kill()
	must(t, c.Primary().Start(ctx))
	await(t, db, "the primary", func() bool { return db.Nodes()[0].Up })
	exec(t, db, "insert into short values (3)")
	exec(t, db, grow)
	if done, twice := get[int](t, ctx, db, "select count(*)::int from short where n <> 2"), get[int](t, ctx, db, "select count(*)::int from short where n = 2"); done != 4 || twice > 1 {
		t.Errorf("%d of 4 rows, and %d of a write that was sent once", done, twice)
	}
}
