package dbsplit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// A session of the writing pool that has become read-only refuses one write, by whatever way that comes, and serves no
// other: what a demotion behind a proxy, or a setting that somebody has left behind, does to it.
func TestReadOnlySessionServesOneWrite(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	db := run(t, dbsplit.Nodes{Primary: c.Primary().URL(c.Database(t))}, &dbsplit.Options{MaxConns: 1})
	notes(t, db)
	ctx := within(t, 60*time.Second)
	session := func() int { return get[int](t, ctx, db, "select pg_backend_pid()") }
	rows := 0
	for name, write := range writers {
		if name == "Acquire, still held" || name == "below pgx" || name == "Acquire" {
			continue // a bare connection: no write of ours sees its error
		}
		must(t, db.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
			_, err := conn.Exec(ctx, "set default_transaction_read_only = on")
			return err
		}))
		before := session()
		var refused *pgconn.PgError
		if err := write(ctx, db, 1); !errors.As(err, &refused) || refused.Code != "25006" || errors.Is(err, dbsplit.ErrOutcomeUnknown) {
			t.Errorf("%s: %v", name, err)
		}
		if after := session(); after == before {
			t.Errorf("%s: the session that refused it is in use still", name)
		}
		if err := write(ctx, db, 1); err != nil {
			t.Errorf("%s, at the next call: %v", name, err)
		}
		rows++
	}
	if n := get[int](t, ctx, db, "select count(*)::int from notes"); n != rows {
		t.Errorf("%d rows after %d good writes", n, rows)
	}
	if rows < 5 {
		t.Errorf("only %d ways to write were tried", rows)
	}
}

// Close waits for what is under way, which ends well, and refuses the rest.
func TestCloseDrains(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	db := open(t, nodesOf(c, database), nil)
	stop := start(t, db)
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	ctx := within(t, 60*time.Second)
	notes(t, db)
	exec(t, db, "create function slowly(int) returns int language sql as 'select pg_advisory_xact_lock_shared(3); select $1'")
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	// Each server has a lock that its statements wait for, so that they are in flight for as long as the test likes.
	var locks []func()
	waiting := func() (n int) {
		for _, s := range c.Servers() {
			conn, err := s.Connect(ctx, database)
			must(t, err)
			n += get[int](t, ctx, conn, "select count(*)::int from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())")
			must(t, conn.Close(ctx))
		}
		return n
	}
	for _, s := range c.Servers() {
		conn, err := s.Connect(ctx, database)
		must(t, err)
		_, err = conn.Exec(ctx, "select pg_advisory_lock(3)")
		must(t, err)
		locks = append(locks, func() { must(t, conn.Close(context.Background())) })
	}
	const reads, writes = 6, 3
	ends := make(chan error, reads+writes)
	for range reads {
		go func() { ends <- db.Read().QueryRow(ctx, "select slowly(1)").Scan(new(int)) }()
	}
	for range writes {
		go func() {
			_, err := db.Exec(ctx, "insert into notes select slowly(1)")
			ends <- err
		}()
	}
	await(t, db, "the statements", func() bool { return waiting() == reads+writes })
	stop()
	closed := make(chan struct{})
	go func() { defer close(closed); db.Close() }()
	await(t, db, "the refusal", func() bool {
		return errors.Is(db.Read().QueryRow(ctx, "select 1").Scan(nil), dbsplit.ErrClosed)
	})
	if _, err := db.Exec(ctx, "insert into notes values (2)"); !errors.Is(err, dbsplit.ErrClosed) {
		t.Errorf("a write after Close has begun: %v", err)
	}
	select {
	case <-closed:
		t.Error("Close has not waited for what is under way")
	default:
	}
	for _, unlock := range locks {
		unlock()
	}
	for range reads + writes {
		if err := <-ends; err != nil {
			t.Errorf("a statement that was under way: %v", err)
		}
	}
	<-closed
	direct := open(t, dbsplit.Nodes{Primary: c.Primary().URL(database)}, nil)
	if n := get[int](t, ctx, direct, "select count(*)::int from notes"); n != writes {
		t.Errorf("%d rows after %d writes", n, writes)
	}
}
