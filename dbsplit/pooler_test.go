package dbsplit_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgbouncer"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// pooler puts a PgBouncer before a server.
func pooler(t testing.TB, s *pgcluster.Server, opts pgbouncer.Options) *pgbouncer.Pooler {
	t.Helper()
	opts.Upstream = s.Addr()
	p, err := pgbouncer.Start(within(t, 30*time.Second), &opts)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.Logs())
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// behind puts a PgBouncer before each of a cluster's servers, and names the nodes with the parameters given.
func behind(t testing.TB, c *pgcluster.Cluster, database, params string, opts pgbouncer.Options) (nodes dbsplit.Nodes, poolers []*pgbouncer.Pooler) {
	t.Helper()
	for i, s := range c.Servers() {
		p := pooler(t, s, opts)
		poolers = append(poolers, p)
		if url := p.URL(database) + params; i == 0 {
			nodes.Primary = url
		} else {
			nodes.Replicas = append(nodes.Replicas, url)
		}
	}
	return nodes, poolers
}

// eachMode runs a test through poolers of each mode, with what has to be declared.
func eachMode(t *testing.T, test func(t *testing.T, mode, params string)) {
	for _, mode := range []string{pgbouncer.Session, pgbouncer.Transaction} {
		t.Run(mode, func(t *testing.T) { test(t, mode, "&node_pooler="+mode) })
	}
}

// pooled runs a DB through poolers before the shared cluster's servers.
func pooled(t *testing.T, mode, params string, opts *dbsplit.Options) (*dbsplit.DB, *pgcluster.Cluster, string) {
	t.Helper()
	c := shared.Get(t)
	database := c.Database(t)
	nodes, _ := behind(t, c, database, params, pgbouncer.Options{Mode: mode, Forgetful: true})
	db := run(t, nodes, opts)
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	return db, c, database
}

// Everything that works directly works through a pooler.
func TestPoolerStatements(t *testing.T) {
	eachMode(t, func(t *testing.T, mode, params string) {
		db, _, _ := pooled(t, mode, params, nil)
		ctx, _ := scaleaware.WithWatermark(within(t, 60*time.Second))
		for _, n := range db.Nodes() {
			if n.Advice != "" {
				t.Errorf("advice on a node that is declared rightly: %+v", n)
			}
		}
		exec(t, watched{db, ctx}, "create table notes (id int generated always as identity, n int, text text, doc jsonb)")
		for i := range 5 {
			if _, err := db.Exec(ctx, "insert into notes (n, text, doc) values ($1, $2, $3)", i, "é;'", map[string]int{"i": i}); err != nil {
				t.Fatal(err)
			}
		}
		n, err := db.CopyFrom(ctx, pgx.Identifier{"notes"}, []string{"n", "text"}, pgx.CopyFromRows([][]any{{5, "five"}, {6, "six"}}))
		if n != 2 || err != nil {
			t.Fatalf("COPY of %d rows: %v", n, err)
		}
		must(t, db.InTx(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into notes (n) values ($1)", 7)
			return err
		}))
		var batch pgx.Batch
		batch.Queue("insert into notes (n) values ($1)", 8)
		batch.Queue("insert into notes (n) values ($1)", 9)
		must(t, db.SendBatch(ctx, &batch).Close())

		for name, read := range map[string]queryRower{"Read": db.Read(dbsplit.WaitForReplica(10 * time.Second)), "the primary": db.Read(dbsplit.PreferPrimary()), "DB": db} {
			if n := get[int](t, ctx, read, "select count(*)::int from notes where n >= $1", 0); n != 10 {
				t.Errorf("%s sees %d rows, want 10", name, n)
			}
			if doc := get[map[string]int](t, ctx, read, "select doc from notes where n = $1", 3); doc["i"] != 3 {
				t.Errorf("%s decodes %v", name, doc)
			}
			if s := get[string](t, ctx, read, "select text from notes where n = @n", pgx.NamedArgs{"n": 1}); s != "é;'" {
				t.Errorf("%s reads %q", name, s)
			}
			if s := get[string](t, ctx, read, "select text from notes where n = $1", pgx.QueryExecModeSimpleProtocol, 1); s != "é;'" {
				t.Errorf("%s reads %q in the simple protocol", name, s)
			}
			var none int
			if err := read.QueryRow(ctx, "select n from notes where n = $1", -1).Scan(&none); !errors.Is(err, pgx.ErrNoRows) {
				t.Errorf("%s: no row: %v", name, err)
			}
			if err := read.QueryRow(ctx, "select nothing from notes where n = $1", -1).Scan(&none); err == nil {
				t.Errorf("%s: a column that is not there was read", name)
			}
		}
		if s := served(t, ctx, db.Read(dbsplit.WaitForReplica(10*time.Second))); s != "replica" {
			t.Errorf("reads are served by the %s", s)
		}
		poolerReads(t, ctx, db)
	})
}

func poolerReads(t *testing.T, ctx context.Context, db *dbsplit.DB) {
	t.Helper()
	read := db.Read(dbsplit.WaitForReplica(10 * time.Second))
	rows, err := read.Query(ctx, "select n, text from notes where n < $1 order by n", 7)
	must(t, err)
	type note struct {
		N    int
		Text string
	}
	notes, err := pgx.CollectRows(rows, pgx.RowToStructByName[note])
	if err != nil || len(notes) != 7 || notes[6] != (note{6, "six"}) || rows.CommandTag().RowsAffected() != 7 {
		t.Errorf("rows %v, %v, %v", notes, rows.CommandTag(), err)
	}
	rows, err = read.Query(ctx, "select generate_series(1, 100000)") // more than any buffer holds
	must(t, err)
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		t.Errorf("rows that were left early: %v", err)
	}
	if tag, err := read.Exec(ctx, "select 1; select n from notes"); err != nil || tag.RowsAffected() != 10 {
		t.Errorf("two statements in one: %v, %v", tag, err)
	}
	var batch pgx.Batch
	sum := 0
	for i := range 3 {
		batch.Queue("select $1::int", i+1).QueryRow(func(row pgx.Row) error {
			var n int
			err := row.Scan(&n)
			sum += n
			return err
		})
	}
	if err := read.SendBatch(ctx, &batch).Close(); err != nil || sum != 6 {
		t.Errorf("a batch: %d, %v", sum, err)
	}
	var first, second int
	must(t, db.InReadTx(ctx, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "select pg_backend_pid()").Scan(&first); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "select pg_backend_pid()").Scan(&second)
	}))
	if first != second {
		t.Error("one transaction was served by two processes")
	}
}

// refusedWrites tries to write through read in every way, and returns those that did not fail as they should.
func refusedWrites(ctx context.Context, read *dbsplit.Reader, as error) (wrong []string) {
	var n int
	batch := func() *pgx.Batch {
		var b pgx.Batch
		b.Queue("select 1")
		b.Queue("insert into notes (n) values ($1)", 99)
		return &b
	}
	tries := map[string]func() error{
		"QueryRow": func() error { return read.QueryRow(ctx, "insert into notes (n) values ($1) returning n", 99).Scan(&n) },
		"Exec": func() error {
			_, err := read.Exec(ctx, "insert into notes (n) values ($1)", 99)
			return err
		},
		"Exec without arguments": func() error {
			_, err := read.Exec(ctx, "insert into notes (n) values (99)")
			return err
		},
		"Exec of several": func() error {
			_, err := read.Exec(ctx, "select 1; insert into notes (n) values (99)")
			return err
		},
		"Exec that asks for it": func() error {
			_, err := read.Exec(ctx, "insert into notes (n) values ($1)", pgx.QueryExecModeExec, 99)
			return err
		},
		"Query": func() error {
			rows, err := read.Query(ctx, "insert into notes (n) values ($1) returning n", 99)
			if err != nil {
				return err
			}
			for rows.Next() {
			}
			return rows.Err()
		},
		"SendBatch": func() error { return read.SendBatch(ctx, batch()).Close() },
		"CopyFrom": func() error {
			_, err := read.CopyFrom(ctx, pgx.Identifier{"notes"}, []string{"n"}, pgx.CopyFromRows([][]any{{99}}))
			return err
		},
	}
	for name, try := range tries {
		if err := try(); !errors.Is(err, as) {
			wrong = append(wrong, name+": "+errorText(err))
		}
	}
	tx, err := read.Begin(ctx)
	if err != nil {
		return append(wrong, "Begin: "+err.Error())
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, "insert into notes (n) values (99)"); err == nil {
		wrong = append(wrong, "a transaction wrote")
	}
	return wrong
}

func errorText(err error) string {
	if err == nil {
		return "it succeeded"
	}
	return err.Error()
}

func TestPoolerRefusesWritesInReads(t *testing.T) {
	eachMode(t, func(t *testing.T, mode, params string) {
		g := new(gate)
		db, _, _ := pooled(t, mode, params, &dbsplit.Options{Gate: g, MaxConns: 3})
		ctx, _ := scaleaware.WithWatermark(within(t, 60*time.Second))
		exec(t, watched{db, ctx}, "create table notes (n int)")
		for range 5 {
			for name, read := range map[string]*dbsplit.Reader{"replica": db.Read(dbsplit.WaitForReplica(10 * time.Second)), "primary": db.Read(dbsplit.PreferPrimary())} {
				if wrong := refusedWrites(ctx, read, dbsplit.ErrWriteInRead); wrong != nil {
					t.Fatalf("on the %s: %s", name, strings.Join(wrong, "\n"))
				}
			}
			exec(t, db, "insert into notes values (1)") // nothing of it has leaked to the writers
		}

		g.set(errMaintenance)
		for name, try := range map[string]func() error{
			"Exec":     func() error { _, err := db.Exec(ctx, "insert into notes values ($1)", 99); return err },
			"QueryRow": func() error { return db.QueryRow(ctx, "insert into notes values (99) returning n").Scan(nil) },
			"Query": func() error {
				rows, err := db.Query(ctx, "insert into notes values ($1) returning n", 99)
				if err == nil {
					rows.Close()
					err = rows.Err()
				}
				return err
			},
			"SendBatch": func() error {
				var b pgx.Batch
				b.Queue("insert into notes values (99)")
				return db.SendBatch(ctx, &b).Close()
			},
			"Acquire": func() error {
				return db.AcquireFunc(ctx, func(c *pgxpool.Conn) error { _, err := c.Exec(ctx, "insert into notes values (99)"); return err })
			},
		} {
			err := try()
			if name == "Acquire" && mode == pgbouncer.Session {
				if err == nil {
					t.Error("an acquired connection wrote behind the gate")
				}
			} else if !errors.Is(err, errMaintenance) {
				t.Errorf("%s behind the gate: %v", name, err)
			}
		}
		if n := get[int](t, ctx, db, "select count(*)::int from notes where n = $1", 1); n != 5 {
			t.Errorf("a read behind the gate sees %d rows, want 5", n)
		}
		g.set(nil)
		if n := get[int](t, ctx, db, "select count(*)::int from notes where n = 99"); n != 0 {
			t.Errorf("%d writes got through", n)
		}
	})
}

// A read waits for what its caller wrote, or goes to the primary, whatever stands in between.
func TestPoolerReadsOwnWrites(t *testing.T) {
	eachMode(t, func(t *testing.T, mode, params string) {
		db, c, _ := pooled(t, mode, params, nil)
		ctx := within(t, 60*time.Second)
		exec(t, db, "create table notes (n int)")
		for _, r := range c.Servers()[1:] {
			must(t, r.WaitCaughtUp(ctx))
			must(t, r.PauseReplay(ctx))
			t.Cleanup(func() { must(t, r.ResumeReplay(context.Background())) })
		}
		session, w := scaleaware.WithWatermark(ctx)
		exec(t, watched{db, session}, "insert into notes values (1)")
		if written, err := w.Written(session); err != nil || len(written) != 1 {
			t.Fatalf("the write left no position: %v, %v", written, err)
		}
		if n := get[int](t, session, db.Read(), "select count(*)::int from notes"); n != 1 {
			t.Error("a session does not see its own write")
		}
		if s := served(t, session, db.Read()); s != "primary" {
			t.Errorf("served by the %s, which has not replayed the write", s)
		}
		if s := served(t, ctx, db.Read()); s != "replica" {
			t.Errorf("somebody else is served by the %s", s)
		}
	})
}

// Many callers share a few server connections, and nothing passes from one to another.
func TestPoolerUnderLoad(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	nodes, poolers := behind(t, c, database, "&node_pooler=transaction&pool_max_conns=12", pgbouncer.Options{Mode: pgbouncer.Transaction, PoolSize: 3})
	db := run(t, nodes, nil)
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	ctx := within(t, 100*time.Second)
	exec(t, db, "create table notes (writer int, n int)")
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	foreign, err := pgx.Connect(ctx, poolers[0].URL(database)+"&default_query_exec_mode=exec")
	must(t, err)
	defer foreign.Close(context.Background())
	var wg sync.WaitGroup
	var wrote atomic.Int64
	for i := range 24 {
		wg.Go(func() {
			session, _ := scaleaware.WithWatermark(ctx)
			for n := range 20 {
				if _, err := db.Exec(session, "insert into notes values ($1, $2)", i, n); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				wrote.Add(1)
				var seen int
				if err := db.Read().QueryRow(session, "select count(*)::int from notes where writer = $1", i).Scan(&seen); err != nil || seen != n+1 {
					t.Errorf("after %d writes of its own a session sees %d: %v", n+1, seen, err)
					return
				}
				if _, err := db.Read().Exec(session, "delete from notes where writer = $1", i); !errors.Is(err, dbsplit.ErrWriteInRead) {
					t.Errorf("a write through Read: %v", err)
					return
				}
			}
		})
	}
	for range 50 {
		var ro, defaultRO string
		if err := foreign.QueryRow(ctx, "select current_setting('transaction_read_only'), current_setting('default_transaction_read_only')").Scan(&ro, &defaultRO); err != nil || ro != "off" || defaultRO != "off" {
			t.Errorf("another client of the pooler has become read-only: %s, %s, %v", ro, defaultRO, err)
			break
		}
	}
	wg.Wait()
	if n := get[int64](t, ctx, db, "select count(*) from notes"); n != wrote.Load() || n != 24*20 {
		t.Errorf("%d rows after %d writes", n, wrote.Load())
	}
}
