package dbsplit_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// turningGate closes while the write is on its way: the first question passes, the next does not.
type turningGate struct {
	mu    sync.Mutex
	asked int
}

func (g *turningGate) AllowWrite(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.asked++; g.asked > 1 {
		return errMaintenance
	}
	return nil
}

// A write that had passed the gate when it closed, and has no connection yet, is refused: Writing could not count it.
func TestGateIsAskedAgainWithTheConnection(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	must(t, c.Primary().Exec(t.Context(), "select 1"))
	for name, write := range map[string]func(ctx context.Context, db *dbsplit.DB) error{
		"exec": func(ctx context.Context, db *dbsplit.DB) error {
			_, err := db.Exec(ctx, "create table slipped ()")
			return err
		},
		"transaction": func(ctx context.Context, db *dbsplit.DB) error {
			return db.InTx(ctx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "create table slipped ()")
				return err
			})
		},
		"copy": func(ctx context.Context, db *dbsplit.DB) error {
			_, err := db.CopyFrom(ctx, pgx.Identifier{"slipped"}, nil, pgx.CopyFromRows(nil))
			return err
		},
	} {
		ctx := within(t, 20*time.Second)
		db := open(t, nodesOf(c, database), &dbsplit.Options{Gate: new(turningGate)})
		if err := write(ctx, db); !errors.Is(err, errMaintenance) {
			t.Errorf("%s: %v", name, err)
		}
		if n := db.Writing(); n != 0 {
			t.Errorf("%s: %d connections may write after a refusal", name, n)
		}
	}
}

func TestWritingCountsWhatMayWrite(t *testing.T) {
	t.Parallel()
	ctx := within(t, 20*time.Second)
	c := shared.Get(t)
	db := open(t, nodesOf(c, c.Database(t)), nil)
	wants := func(n int, when string) {
		t.Helper()
		if got := db.Writing(); got != n {
			t.Errorf("%s: Writing = %d, want %d", when, got, n)
		}
	}
	wants(0, "at rest")
	tx, err := db.Begin(ctx)
	must(t, err)
	wants(1, "in a transaction")
	conn, err := db.Acquire(ctx)
	must(t, err)
	wants(2, "with a connection besides")
	must(t, db.Resize(ctx, 7))
	wants(2, "when their pool was replaced")
	read, err := db.Read().Begin(ctx)
	must(t, err)
	wants(2, "with a read besides")
	must(t, read.Rollback(ctx))
	must(t, tx.Commit(ctx))
	conn.Release()
	for db.Writing() != 0 { // pgxpool gives connections back in the background
		if ctx.Err() != nil {
			t.Fatalf("Writing stays %d", db.Writing())
		}
	}
}

// withFence opens a DB with a fence, and a connection of somebody else to its primary.
func withFence(t *testing.T, ctx context.Context) (*dbsplit.DB, *pgx.Conn) {
	t.Helper()
	c := shared.Get(t)
	database := c.Database(t)
	other, err := c.Primary().Connect(ctx, database)
	must(t, err)
	t.Cleanup(func() { other.Close(context.Background()) })
	return open(t, nodesOf(c, database), &dbsplit.Options{FenceLock: 4711}), other
}

// A transaction holds the fence's lock until it ends, whatever its options.
func TestFenceLockIsHeldByTransactions(t *testing.T) {
	t.Parallel()
	ctx := within(t, 20*time.Second)
	db, other := withFence(t, ctx)
	free := func() (free bool) {
		must(t, other.QueryRow(ctx, "select pg_try_advisory_xact_lock(4711)").Scan(&free))
		return free
	}
	all := openSQL(t, db.Connector())
	for how, begin := range map[string]func(o pgx.TxOptions) (commit func() error){
		"BeginTx": func(o pgx.TxOptions) func() error {
			tx, err := db.BeginTx(ctx, o)
			must(t, err)
			return func() error { return tx.Commit(ctx) }
		},
		"a batch": func(o pgx.TxOptions) func() error {
			var b pgx.Batch
			b.BeginTx(o)
			b.Queue("select 1")
			results := db.SendBatch(ctx, &b)
			_, err := results.Exec()
			must(t, err)
			var one int
			if err := results.QueryRow().Scan(&one); err != nil || one != 1 {
				t.Errorf("the batch's own query: %d, %v", one, err)
			}
			must(t, results.Close())
			return func() error { return results.Tx().Commit(ctx) }
		},
		"a batch that only begins": func(o pgx.TxOptions) func() error {
			var b pgx.Batch
			b.BeginTx(o)
			results := db.SendBatch(ctx, &b)
			must(t, results.Close())
			return func() error { return results.Tx().Commit(ctx) }
		},
		"database/sql": func(o pgx.TxOptions) func() error {
			level := sql.LevelDefault
			if o.IsoLevel == pgx.Serializable {
				level = sql.LevelSerializable
			}
			tx, err := all.BeginTx(ctx, &sql.TxOptions{Isolation: level})
			must(t, err)
			return tx.Commit
		},
	} {
		for _, o := range []pgx.TxOptions{
			{}, {IsoLevel: pgx.Serializable, AccessMode: pgx.ReadWrite, DeferrableMode: pgx.NotDeferrable}, {BeginQuery: "begin"}, {BeginQuery: "begin -- by hand"},
		} {
			commit := begin(o)
			if free() {
				t.Errorf("%s with %+v: the transaction does not hold the lock", how, o)
			}
			must(t, commit())
			if !free() {
				t.Errorf("%s with %+v: the lock outlives the transaction", how, o)
			}
		}
	}
}

// A transaction of a sql.Conn that does not get the fence's lock leaves the session as it was.
func TestFenceLockThatIsNotToBeHad(t *testing.T) {
	t.Parallel()
	ctx := within(t, 20*time.Second)
	db, other := withFence(t, ctx)
	conn, err := openSQL(t, db.Connector()).Conn(ctx)
	must(t, err)
	defer conn.Close()
	sqlExec(t, ctx, conn, "set lock_timeout = 10")
	exec(t, other, "select pg_advisory_lock(4711)")
	if _, err := conn.BeginTx(ctx, nil); err == nil {
		t.Error("a transaction was begun without the lock")
	}
	exec(t, other, "select pg_advisory_unlock(4711)")
	if s := sqlGet[string](t, ctx, conn, "select current_setting('lock_timeout')"); s != "10ms" {
		t.Errorf("another session, where lock_timeout is %s", s)
	}
	tx, err := conn.BeginTx(ctx, nil)
	must(t, err)
	must(t, tx.Commit())
}
