package dbsplit_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/metrics"
)

// openSQL opens a database/sql handle, and closes it when the test ends, before the DB below it.
func openSQL(t testing.TB, c *dbsplit.Connector) *sql.DB {
	t.Helper()
	db := sql.OpenDB(c)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

// sqlQuerier is a *sql.DB, *sql.Conn or *sql.Tx.
type sqlQuerier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func sqlGet[T any](t testing.TB, ctx context.Context, db sqlQuerier, query string, args ...any) (v T) {
	t.Helper()
	if err := db.QueryRowContext(ctx, query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func sqlExec(t testing.TB, ctx context.Context, db sqlQuerier, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(ctx, query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func sqlServed(t testing.TB, ctx context.Context, db sqlQuerier) string {
	t.Helper()
	return sqlGet[string](t, ctx, db, "select case when pg_is_in_recovery() then 'replica' else 'primary' end")
}

var readOnly = &sql.TxOptions{ReadOnly: true}

func TestSQLRouting(t *testing.T) {
	db, _, _ := settled(t, nil)
	ctx := within(t, 20*time.Second)
	all, reads := openSQL(t, db.Connector()), openSQL(t, db.Read().Connector())
	near := openSQL(t, db.Read(dbsplit.PreferPrimary()).Connector())
	for name, c := range map[string]struct {
		db   *sql.DB
		want string
	}{"DB": {all, "primary"}, "Reader": {reads, "replica"}, "Reader of the primary": {near, "primary"}} {
		must(t, c.db.PingContext(ctx))
		if s := sqlServed(t, ctx, c.db); s != c.want {
			t.Errorf("%s: a statement was served by the %s", name, s)
		}
		stmt, err := c.db.PrepareContext(ctx, "select pg_is_in_recovery() and $1")
		must(t, err)
		for range 3 {
			var replica bool
			must(t, stmt.QueryRowContext(ctx, true).Scan(&replica))
			if replica != (c.want == "replica") {
				t.Errorf("%s: a prepared statement was not served by the %s", name, c.want)
			}
		}
		must(t, stmt.Close())
	}
	for _, c := range []struct {
		db   *sql.DB
		opts *sql.TxOptions
		want string
	}{
		{all, nil, "primary"},
		{all, readOnly, "replica"},
		{all, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelSnapshot}, "replica"},
		{all, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelSerializable}, "primary"},
		{all, &sql.TxOptions{Isolation: sql.LevelSerializable}, "primary"},
		{reads, nil, "replica"},
		{reads, readOnly, "replica"},
		{near, nil, "primary"},
	} {
		tx, err := c.db.BeginTx(ctx, c.opts)
		must(t, err)
		if s := sqlServed(t, ctx, tx); s != c.want {
			t.Errorf("a transaction with %+v was served by the %s, want the %s", c.opts, s, c.want)
		}
		mode := sqlGet[string](t, ctx, tx, "select current_setting('transaction_read_only') || ' ' || current_setting('transaction_isolation')")
		want := map[bool]string{true: "on", false: "off"}[c.db != all || c.opts != nil && c.opts.ReadOnly]
		want += map[sql.IsolationLevel]string{
			sql.LevelDefault: " read committed", sql.LevelSnapshot: " repeatable read", sql.LevelSerializable: " serializable",
		}[optsOf(c.opts).Isolation]
		if mode != want {
			t.Errorf("a transaction with %+v is %q, want %q", c.opts, mode, want)
		}
		must(t, tx.Commit())
		if err := tx.Commit(); !errors.Is(err, sql.ErrTxDone) {
			t.Errorf("second commit: %v", err)
		}
	}
	if _, err := all.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelLinearizable}); err == nil {
		t.Error("PostgreSQL has no linearizable transactions, but one was begun")
	}
	if _, err := all.ExecContext(ctx, "select $1", sql.Named("n", 1)); err == nil {
		t.Error("a named parameter was taken for a position")
	}
	if v := sqlGet[int](t, ctx, all, "select @n::int", pgx.NamedArgs{"n": 7}); v != 7 {
		t.Errorf("pgx.NamedArgs: %d", v)
	}
	if _, err := all.Driver().Open("postgres://"); err == nil {
		t.Error("the driver opened a name")
	}
}

func optsOf(o *sql.TxOptions) sql.TxOptions {
	if o == nil {
		return sql.TxOptions{}
	}
	return *o
}

// sqlWriters are the ways to write through database/sql.
var sqlWriters = map[string]func(ctx context.Context, db *sql.DB) error{
	"Exec": func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, "insert into notes values ($1)", 1)
		return err
	},
	"QueryRow": func(ctx context.Context, db *sql.DB) error {
		return db.QueryRowContext(ctx, "insert into notes values ($1) returning n", 1).Scan(new(int))
	},
	"a prepared statement": func(ctx context.Context, db *sql.DB) error {
		stmt, err := db.PrepareContext(ctx, "insert into notes values ($1)")
		if err != nil {
			return err
		}
		defer stmt.Close()
		_, err = stmt.ExecContext(ctx, 1)
		return err
	},
	"a transaction": func(ctx context.Context, db *sql.DB) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.Exec("insert into notes values (1)"); err != nil {
			return err
		}
		return tx.Commit()
	},
	"a sql.Conn": func(ctx context.Context, db *sql.DB) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { conn.Close() }) // it may write again
		_, err = conn.ExecContext(ctx, "insert into notes values (1)")
		return err
	},
	"RawConn": func(ctx context.Context, db *sql.DB) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		return dbsplit.RawConn(ctx, conn, func(c *pgx.Conn) error {
			_, err := c.CopyFrom(ctx, pgx.Identifier{"notes"}, []string{"n"}, pgx.CopyFromRows([][]any{{1}}))
			return err
		})
	},
}

// Replay is paused, so that only a read from the primary can find what was written.
func TestSQLReadYourWrites(t *testing.T) {
	db, c, _ := settled(t, nil)
	notes(t, db)
	all, reads := openSQL(t, db.Connector()), openSQL(t, db.Read().Connector())
	resume := pause(t, c)
	const count = "select count(*)::int from notes"
	look := func(ctx context.Context) (rows []int, from string) {
		tx, err := all.BeginTx(ctx, readOnly)
		must(t, err)
		defer func() { must(t, tx.Rollback()) }()
		return []int{sqlGet[int](t, ctx, tx, count), sqlGet[int](t, ctx, reads, count)}, sqlServed(t, ctx, tx)
	}
	written := 0
	var last context.Context
	for name, write := range sqlWriters {
		ctx, cancel := context.WithCancel(within(t, 20*time.Second))
		defer cancel()
		ctx, _ = scaleaware.WithWatermark(ctx)
		must(t, write(ctx, all))
		written++
		if rows, from := look(ctx); rows[0] != written || rows[1] != written || from != "primary" {
			t.Errorf("%s: its caller sees %v rows of %d, on the %s", name, rows, written, from)
		}
		if rows, from := look(within(t, 20*time.Second)); rows[0] != 0 || rows[1] != 0 || from != "replica" {
			t.Fatalf("others see %v rows on the %s: it is no test", rows, from)
		}
		last = ctx
	}
	ctx, w := scaleaware.WithWatermark(within(t, 20*time.Second))
	tx, err := all.BeginTx(ctx, nil)
	must(t, err)
	sqlExec(t, ctx, tx, "insert into notes values (1)")
	if w.Changes() != 0 {
		t.Error("the watermark rose before the commit")
	}
	must(t, tx.Rollback())
	resume()
	await(t, db, "a replica to serve the caller", func() bool {
		rows, from := look(last)
		if rows[0] != written || rows[1] != written {
			t.Fatalf("the caller sees %v rows of %d, on the %s", rows, written, from)
		}
		return from == "replica"
	})
}

func TestSQLWriteInRead(t *testing.T) {
	db, c, _ := settled(t, nil)
	notes(t, db)
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(within(t, 10*time.Second)))
	}
	ctx := within(t, 20*time.Second)
	all, reads := openSQL(t, db.Connector()), openSQL(t, db.Read().Connector())
	const insert = "insert into notes values (1) returning n"
	begin := func(db *sql.DB, opts *sql.TxOptions) *sql.Tx {
		tx, err := db.BeginTx(ctx, opts)
		must(t, err)
		t.Cleanup(func() { _ = tx.Rollback() })
		return tx
	}
	serializable := &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelSerializable}
	for name, open := range map[string]func() sqlQuerier{
		"a handle for reads":                   func() sqlQuerier { return reads },
		"its transaction":                      func() sqlQuerier { return begin(reads, nil) },
		"a read-only transaction":              func() sqlQuerier { return begin(all, readOnly) },
		"a read-only transaction, the primary": func() sqlQuerier { return begin(all, serializable) },
	} {
		if _, err := open().ExecContext(ctx, insert); !errors.Is(err, dbsplit.ErrWriteInRead) {
			t.Errorf("%s, Exec: %v", name, err)
		}
		if err := open().QueryRowContext(ctx, insert).Scan(new(int)); !errors.Is(err, dbsplit.ErrWriteInRead) {
			t.Errorf("%s, QueryRow: %v", name, err)
		}
	}
	if n := sqlGet[int](t, ctx, all, "select count(*) from notes"); n != 0 {
		t.Errorf("%d writes went through", n)
	}
}

func TestSQLGate(t *testing.T) {
	g := new(gate)
	db, _, _ := settled(t, &dbsplit.Options{Gate: g})
	notes(t, db)
	all := openSQL(t, db.Connector())
	ctx := within(t, 20*time.Second)
	before, err := all.Conn(ctx)
	must(t, err)
	defer before.Close()
	sqlExec(t, ctx, before, "insert into notes values (1)")
	g.set(errMaintenance)
	during, err := all.Conn(ctx)
	must(t, err)
	defer during.Close()
	for name, db := range map[string]sqlQuerier{"DB": all, "a Conn that was used before": before, "a new Conn": during} {
		if _, err := db.ExecContext(ctx, "insert into notes values (1)"); !errors.Is(err, errMaintenance) {
			t.Errorf("%s, Exec: %v", name, err)
		}
		if err := db.QueryRowContext(ctx, "insert into notes values (1) returning n").Scan(new(int)); !errors.Is(err, errMaintenance) {
			t.Errorf("%s, QueryRow: %v", name, err)
		}
		if _, err := db.(interface {
			BeginTx(context.Context, *sql.TxOptions) (*sql.Tx, error)
		}).BeginTx(ctx, nil); !errors.Is(err, errMaintenance) {
			t.Errorf("%s, BeginTx: %v", name, err)
		}
	}
	must(t, all.PingContext(ctx))
	for _, db := range []sqlQuerier{all, during} {
		if n := sqlGet[int](t, ctx, db, "select count(*) from notes"); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	}
	tx, err := all.BeginTx(ctx, readOnly)
	must(t, err)
	must(t, tx.Commit())
	g.set(nil)
	for _, db := range []sqlQuerier{all, before} {
		sqlExec(t, ctx, db, "insert into notes values (1)")
	}
	if _, err := during.ExecContext(ctx, "insert into notes values (1)"); !errors.Is(err, errMaintenance) {
		t.Errorf("a session that began read-only: %v", err)
	}
}

// One sql.Conn is one session, also around its transactions; between uses of a sql.DB nothing is held.
func TestSQLSession(t *testing.T) {
	reg := prometheus.NewRegistry()
	db, _, _ := settled(t, &dbsplit.Options{MaxConns: 2, Registerer: reg})
	ctx := within(t, 20*time.Second)
	all, reads := openSQL(t, db.Connector()), openSQL(t, db.Read().Connector())
	conn, err := all.Conn(ctx)
	must(t, err)
	const backend = "select pg_backend_pid()"
	tx, err := conn.BeginTx(ctx, nil)
	must(t, err)
	pid := sqlGet[int](t, ctx, tx, backend)
	sqlExec(t, ctx, tx, "create temp table mine (n int)")
	must(t, tx.Commit())
	sqlExec(t, ctx, conn, "select pg_advisory_lock(1)")
	for range 3 {
		if other := sqlGet[int](t, ctx, all, backend); other == pid {
			t.Fatal("a statement of the DB ran in the session of a sql.Conn")
		}
		if same := sqlGet[int](t, ctx, conn, backend); same != pid {
			t.Fatal("a sql.Conn changed its session")
		}
	}
	tx, err = conn.BeginTx(ctx, readOnly)
	must(t, err)
	if s := sqlServed(t, ctx, tx); s != "replica" {
		t.Errorf("a read-only transaction of a sql.Conn was served by the %s", s)
	}
	must(t, tx.Rollback())
	if n := sqlGet[int](t, ctx, conn, "select count(*) from mine"); n != 0 {
		t.Errorf("%d rows", n)
	}
	if !sqlGet[bool](t, ctx, conn, "select pg_advisory_unlock(1)") {
		t.Error("the lock was taken in another session")
	}
	must(t, dbsplit.RawConn(ctx, conn, func(c *pgx.Conn) error {
		if got := c.PgConn().PID(); int(got) != pid {
			t.Errorf("RawConn got session %d, want %d", got, pid)
		}
		return nil
	}))
	must(t, conn.Close())

	r, err := reads.Conn(ctx)
	must(t, err)
	nothing := func(*pgx.Conn) error { return nil }
	if err := dbsplit.RawConn(ctx, r, nothing); err == nil {
		t.Error("RawConn gave a connection that the next statement may not use")
	}
	tx, err = r.BeginTx(ctx, nil)
	must(t, err)
	must(t, dbsplit.RawConn(ctx, r, nothing))
	must(t, tx.Rollback())
	must(t, r.Close())
	nothingHeld(t, db, reg)
}

// nothingHeld waits until all connections are back in their pools.
func nothingHeld(t testing.TB, db *dbsplit.DB, reg *prometheus.Registry) {
	t.Helper()
	await(t, db, "connections to be given back", func() bool {
		return db.Stat().AcquiredConns() == 0 && counter(t, reg, metrics.DBPoolAcquired.Name) == 0
	})
}

// Half-read rows, errors, ended contexts and abandoned transactions give their connections back, and more callers than
// connections get on.
func TestSQLGivesBack(t *testing.T) {
	reg := prometheus.NewRegistry()
	db, _, _ := settled(t, &dbsplit.Options{MaxConns: 3, Registerer: reg})
	all, reads := openSQL(t, db.Connector()), openSQL(t, db.Read().Connector())
	ctx := within(t, 60*time.Second)
	exec(t, db, "create table ledger (id int primary key)")
	stmt, err := all.PrepareContext(ctx, "select generate_series(1, $1::int)")
	must(t, err)
	defer stmt.Close()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				half(t, ctx, all)
				half(t, ctx, reads)
				half(t, ctx, stmtQuerier{all, stmt})
				if _, err := all.ExecContext(ctx, "insert into ledger values ($1)", i*100+j); err != nil {
					t.Errorf("insert: %v", err)
				}
				if _, err := all.ExecContext(ctx, "insert into ledger values ($1)", i*100+j); err == nil {
					t.Error("a second row with the same key")
				}
				for _, opts := range []*sql.TxOptions{nil, readOnly} {
					short, cancel := context.WithCancel(ctx)
					tx, err := all.BeginTx(short, opts)
					if err != nil {
						t.Errorf("BeginTx: %v", err)
						cancel()
						continue
					}
					half(t, ctx, tx)
					if j%2 == 0 {
						cancel()
					}
					if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
						t.Errorf("rollback: %v", err)
					}
					cancel()
				}
			}
		})
	}
	wg.Wait()
	ended, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	for _, db := range []*sql.DB{all, reads} {
		if _, err := db.ExecContext(ended, "select pg_sleep(60)"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a context that ends: %v", err)
		}
	}
	if n := sqlGet[int](t, ctx, all, "select count(*) from ledger"); n != 160 {
		t.Errorf("%d rows, want 160", n)
	}
	nothingHeld(t, db, reg)
}

// stmtQuerier runs whatever is asked as one prepared statement.
type stmtQuerier struct {
	*sql.DB
	stmt *sql.Stmt
}

func (s stmtQuerier) QueryContext(ctx context.Context, _ string, _ ...any) (*sql.Rows, error) {
	return s.stmt.QueryContext(ctx, 1000)
}

func half(t testing.TB, ctx context.Context, db sqlQuerier) {
	rows, err := db.QueryContext(ctx, "select generate_series(1, 1000)")
	if err != nil {
		t.Errorf("query: %v", err)
		return
	}
	for want := range 10 {
		var n int
		if !rows.Next() || rows.Scan(&n) != nil || n != want+1 {
			t.Errorf("row %d is %d: %v", want+1, n, rows.Err())
		}
	}
	if err := rows.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// A transaction that is begun by mistake within another one does not end that one: it stays failed, as in PostgreSQL.
func TestSQLBeginWithinATransaction(t *testing.T) {
	db, _, _ := settled(t, nil)
	ctx := within(t, 20*time.Second)
	exec(t, db, "create table t (n int)")
	conn, err := openSQL(t, db.Connector()).Conn(ctx)
	must(t, err)
	defer conn.Close()
	outer, err := conn.BeginTx(ctx, nil)
	must(t, err)
	sqlExec(t, ctx, outer, "insert into t values (1)")
	if _, err := conn.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable}); err == nil {
		t.Error("it was begun")
	}
	if _, err := outer.ExecContext(ctx, "insert into t values (2)"); err == nil {
		t.Error("the outer one goes on")
	}
	if err := outer.Commit(); err == nil {
		t.Error("the outer one is committed")
	}
	if n := get[int](t, ctx, db, "select count(*)::int from t"); n != 0 {
		t.Errorf("%d rows", n)
	}
}
