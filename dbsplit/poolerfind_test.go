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
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgbouncer"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// sent counts the statements of callers with a context of counting, but for the one that prepares a session: a pool and its
// gauges send some whenever they like.
type sent struct{ n atomic.Int64 }

type counting struct{}

func (s *sent) count(ctx context.Context, sql string) context.Context {
	if ctx.Value(counting{}) != nil && sql != "set default_transaction_read_only = on" {
		s.n.Add(1)
	}
	return ctx
}

func (s *sent) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return s.count(ctx, data.SQL)
}

func (*sent) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (s *sent) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return s.count(ctx, "")
}

func (*sent) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (*sent) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// advised waits until the monitor has something to say about the first node.
func advised(t testing.TB, db *dbsplit.DB, part string) {
	t.Helper()
	await(t, db, "advice to say "+part, func() bool { return strings.Contains(db.Nodes()[0].Advice, part) })
}

// A pooler whose mode breaks prepared statements gets none, once the monitor has found it.
func TestPoolerFound(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	direct, err := c.Primary().Connect(t.Context(), database)
	must(t, err)
	defer direct.Close(context.Background())
	exec(t, direct, "create table notes (n int)")
	for name, test := range map[string]struct {
		turns                string // server_round_robin: whether the server connection that was idle longest comes next
		params, advice, role string
	}{
		"undeclared":                     {"0", "", "add node_pooler=transaction", "postgres"},
		"undeclared, unprivileged":       {"0", "", "add node_pooler=transaction", "app"},
		"undeclared, by turns":           {"1", "", "add node_pooler=transaction", "postgres"},
		"describe_exec":                  {"0", "&default_query_exec_mode=describe_exec", "add node_pooler=transaction", "postgres"},
		"declared as session":            {"0", "&node_pooler=session", "node_pooler=transaction", "postgres"},
		"declared as session, by turns":  {"1", "&node_pooler=session", "node_pooler=transaction", "postgres"},
		"declared as prepared":           {"0", "&node_pooler=transaction-prepared", "max_prepared_statements", "postgres"},
		"declared as prepared, by turns": {"1", "&node_pooler=transaction-prepared", "max_prepared_statements", "postgres"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.role != "postgres" {
				exec(t, direct, "create role "+test.role+" login; grant all on notes to "+test.role)
				defer exec(t, direct, "drop owned by "+test.role+"; drop role "+test.role)
			}
			p := pooler(t, c.Primary(), pgbouncer.Options{
				Mode: pgbouncer.Transaction, User: test.role, Forgetful: true,
				Settings: map[string]string{"server_round_robin": test.turns},
			})
			defer p.Kill() // its connections would keep the role from being dropped
			s := new(sent)
			db := run(t, dbsplit.Nodes{Primary: p.URL(database) + test.params}, &dbsplit.Options{Tracer: s})
			advised(t, db, test.advice)
			ctx := context.WithValue(within(t, 20*time.Second), counting{}, true)
			for range 20 {
				_, err := db.Exec(ctx, "insert into notes values ($1)", 1)
				if !errors.Is(err, dbsplit.ErrPooler) || !strings.Contains(err.Error(), test.advice) {
					t.Fatalf("a write: %v", err)
				}
				if err := db.InTx(ctx, func(pgx.Tx) error { return nil }); !errors.Is(err, dbsplit.ErrPooler) {
					t.Fatalf("a transaction: %v", err)
				}
				var n int
				if err := db.Read().QueryRow(ctx, "select $1::int", 1).Scan(&n); !errors.Is(err, dbsplit.ErrPooler) {
					t.Fatalf("a read: %v", err)
				}
			}
			if n := s.n.Load(); n != 0 {
				t.Errorf("%d statements were sent", n)
			}
			if n := get[int](t, ctx, direct, "select count(*)::int from notes"); n != 0 {
				t.Errorf("%d rows were written", n)
			}
			if err := db.Ready(ctx); !errors.Is(err, dbsplit.ErrPooler) {
				t.Errorf("Ready: %v", err)
			}
		})
	}
}

// What does no harm is advised on, and goes on.
func TestPoolerAdvice(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	for name, test := range map[string]struct {
		opts           *pgbouncer.Options
		params, advice string
		reads          bool
	}{
		"session, undeclared":     {&pgbouncer.Options{Mode: pgbouncer.Session}, "", "add node_pooler=session", false},
		"safe mode, undeclared":   {&pgbouncer.Options{Mode: pgbouncer.Transaction}, "&default_query_exec_mode=exec", "add node_pooler=transaction", false},
		"ignored parameter":       {&pgbouncer.Options{Settings: map[string]string{"ignore_startup_parameters": "default_transaction_read_only"}}, "", "add node_pooler=session", false},
		"session, as transaction": {&pgbouncer.Options{Mode: pgbouncer.Session}, "&node_pooler=transaction", "say node_pooler=session", true},
		"declared, not there":     {nil, "&node_pooler=session", "take node_pooler out", true},
	} {
		t.Run(name, func(t *testing.T) {
			url := c.Primary().URL(database)
			if test.opts != nil {
				url = pooler(t, c.Primary(), *test.opts).URL(database)
			}
			db := run(t, dbsplit.Nodes{Primary: url + test.params}, nil)
			advised(t, db, test.advice)
			ctx := within(t, 20*time.Second)
			exec(t, db, "create table if not exists notes (n int)")
			exec(t, db, "insert into notes values ($1)", 1)
			var n int
			err := db.Read().QueryRow(ctx, "select 1").Scan(&n)
			switch {
			case test.reads && err != nil:
				t.Errorf("a read: %v", err)
			case !test.reads && (!errors.Is(err, dbsplit.ErrPooler) || !strings.Contains(err.Error(), "node_pooler=")):
				t.Errorf("a read over a session that is not read-only: %v", err)
			}
			must(t, db.Ready(ctx))
		})
	}
}

// Without the monitor nobody looks, but the error that comes says what to do, and nothing is repeated.
func TestPoolerBreaksPreparedStatements(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	p := pooler(t, c.Primary(), pgbouncer.Options{Mode: pgbouncer.Transaction, Forgetful: true})
	db := open(t, dbsplit.Nodes{Primary: p.URL(database) + "&pool_max_conns=8"}, nil)
	ctx := within(t, 30*time.Second)
	exec(t, db, "create table notes (n int)")
	var wg sync.WaitGroup
	var broken, good atomic.Int64
	for range 8 {
		wg.Go(func() {
			for i := range 25 {
				_, err := db.Exec(ctx, "insert into notes values ($1)", i)
				if err == nil {
					good.Add(1)
					continue
				}
				broken.Add(1)
				pgErr, ok := errors.AsType[*pgconn.PgError](err)
				if !errors.Is(err, dbsplit.ErrPooler) || errors.Is(err, dbsplit.ErrOutcomeUnknown) || !ok ||
					pgErr.Code != "26000" && pgErr.Code != "42P05" || !strings.Contains(err.Error(), "node_pooler=transaction") {
					t.Errorf("%v", err)
				}
			}
		})
	}
	wg.Wait()
	if broken.Load() == 0 {
		t.Error("nothing failed, so nothing was tried")
	}
	if n := get[int64](t, ctx, db, "select count(*) from notes", pgx.QueryExecModeExec); n != good.Load() {
		t.Errorf("%d rows after %d writes that succeeded", n, good.Load())
	}
	if _, err := db.Exec(ctx, "deallocate nothing"); !errors.Is(err, dbsplit.ErrPooler) {
		t.Errorf("26000: %v", err)
	}
}

// A direct connection's 26000 is the program's own.
func TestNoPoolerNoAdvice(t *testing.T) {
	db, _, _ := settled(t, nil)
	for _, n := range db.Nodes() {
		if n.Advice != "" {
			t.Errorf("%+v", n)
		}
	}
	for name, f := range map[string]pgExec{"a write": db, "a read": db.Read()} {
		if _, err := f.Exec(within(t, 10*time.Second), "deallocate nothing"); err == nil || errors.Is(err, dbsplit.ErrPooler) {
			t.Errorf("26000 of %s over a direct connection: %v", name, err)
		}
	}
}

// The server behind the primary's pooler is a standby all of a sudden, and the pooler's clients go on being told what
// they were told when they connected.
func TestPoolerBeforeDemotedServer(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	p := pooler(t, c.Primary(), pgbouncer.Options{Mode: pgbouncer.Transaction})
	db := run(t, dbsplit.Nodes{Primary: p.URL(database) + "&node_pooler=transaction", Replicas: []string{c.Replica(1).URL(database)}}, nil)
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	ctx := within(t, 60*time.Second)
	exec(t, db, "create table notes (n int)")
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	must(t, p.Retarget(ctx, c.Replica(0).Addr()))
	await(t, db, "the write to fail", func() bool {
		_, err := db.Exec(ctx, "insert into notes values ($1)", 1)
		if err != nil && !errors.Is(err, dbsplit.ErrNotPrimary) && !errors.Is(err, dbsplit.ErrOutcomeUnknown) { // the pooler cuts off who is just connecting
			t.Fatalf("a write to a standby: %v", err)
		}
		return errors.Is(err, dbsplit.ErrNotPrimary)
	})
	await(t, db, "Ready to fail", func() bool { return errors.Is(db.Ready(ctx), dbsplit.ErrNotPrimary) })
	must(t, p.Retarget(ctx, c.Primary().Addr()))
	await(t, db, "a write", func() bool {
		_, err := db.Exec(ctx, "insert into notes values ($1)", 2)
		return err == nil
	})
	await(t, db, "Ready", func() bool { return db.Ready(ctx) == nil })
}

// A replica is promoted behind its pooler, which has told everybody that it is a standby and does not take that back.
func TestPoolerBeforePromotedServer(t *testing.T) {
	t.Parallel()
	ctx := within(t, 80*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	defer c.Close()
	dbs := make(map[string]*dbsplit.DB)
	for _, mode := range []string{pgbouncer.Session, pgbouncer.Transaction} {
		nodes, _ := behind(t, c, "postgres", "&node_pooler="+mode, pgbouncer.Options{Mode: mode})
		db, err := dbsplit.Open(ctx, nodes, nil)
		must(t, err)
		defer db.Close()
		defer start(t, db)()
		dbs[mode] = db
		await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	}
	exec(t, dbs[pgbouncer.Session], "create table notes (n int)")
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	for _, db := range dbs {
		for range 10 {
			served(t, ctx, db.Read()) // the pools of readers are filled
		}
	}
	c.Primary().Kill()
	must(t, c.Replica(0).Promote(ctx))
	for mode, db := range dbs {
		await(t, db, "writes", func() bool {
			_, err := db.Exec(ctx, "insert into notes values ($1)", 1)
			return err == nil
		})
		for name, read := range map[string]*dbsplit.Reader{"": db.Read(), " that prefer the primary": db.Read(dbsplit.PreferPrimary())} {
			for range 5 {
				if wrong := refusedWrites(ctx, read, dbsplit.ErrWriteInRead); wrong != nil {
					t.Fatalf("reads%s on the promoted server, in %s mode: %s", name, mode, strings.Join(wrong, "\n"))
				}
			}
		}
	}
	if n := get[int](t, ctx, dbs[pgbouncer.Transaction].Read(dbsplit.PreferPrimary()), "select count(*)::int from notes"); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

// A pooler whose server has died keeps its clients waiting. They are not left to their deadlines.
func TestPoolerBeforeDeadServer(t *testing.T) {
	eachMode(t, func(t *testing.T, mode, params string) {
		c := shared.Get(t)
		database := c.Database(t)
		ctx := within(t, 40*time.Second)
		p := pooler(t, c.Primary(), pgbouncer.Options{Mode: mode})
		db := run(t, dbsplit.Nodes{Primary: p.URL(database) + params}, nil)
		await(t, db, "the primary", func() bool { return db.Nodes()[0].Up })
		exec(t, db, "create table notes (n int)")
		holder, err := c.Primary().Connect(ctx, database)
		must(t, err)
		defer holder.Close(context.Background())
		exec(t, holder, "select pg_advisory_lock(1)")
		pending := make(chan error, 1)
		go func() {
			_, err := db.Exec(ctx, "with l as materialized (select pg_advisory_xact_lock($1)) insert into notes select 0 from l", 1)
			pending <- err
		}()
		await(t, db, "the write to wait", func() bool {
			return get[bool](t, ctx, holder, "select exists (select from pg_locks where locktype = 'advisory' and not granted)")
		})
		c.Primary().Kill()
		if err := <-pending; !errors.Is(err, dbsplit.ErrOutcomeUnknown) {
			t.Errorf("a write that was under way: %v", err)
		}
		t.Cleanup(func() {
			must(t, c.Primary().Start(context.Background()))
			for _, r := range c.Servers()[1:] {
				must(t, r.WaitCaughtUp(context.Background()))
			}
		})
		begun := time.Now()
		for range 3 {
			if _, err := db.Exec(ctx, "insert into notes values ($1)", 1); err == nil || ctx.Err() != nil {
				t.Errorf("a write to a dead server, after %v: %v", time.Since(begun), err)
			}
		}
	})
}

// Where all server connections are taken, a probe waits in the pooler's queue. That is no reason to end what runs.
func TestPoolerQueueIsNoSilence(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	ctx := within(t, 60*time.Second)
	p := pooler(t, c.Primary(), pgbouncer.Options{Mode: pgbouncer.Transaction, PoolSize: 1})
	db := run(t, dbsplit.Nodes{Primary: p.URL(database) + "&node_pooler=transaction"}, &dbsplit.Options{ProbeTimeout: 200 * time.Millisecond, ProbeInterval: 20 * time.Millisecond})
	await(t, db, "the primary", func() bool { return db.Nodes()[0].Up })
	holder, err := c.Primary().Connect(ctx, database)
	must(t, err)
	defer holder.Close(context.Background())
	exec(t, holder, "select pg_advisory_lock(1)")
	done := make(chan error, 1)
	go func() {
		_, err := db.Exec(ctx, "select pg_advisory_xact_lock($1)", 1)
		done <- err
	}()
	for range 3 {
		await(t, db, "the primary to be busy", func() bool { return !db.Nodes()[0].Up })
		if err := db.Ready(ctx); err == nil {
			t.Error("Ready, though nobody answers")
		}
	}
	select {
	case err := <-done:
		t.Fatalf("the statement has ended while the lock was held: %v", err)
	default:
	}
	exec(t, holder, "select pg_advisory_unlock(1)")
	if err := <-done; err != nil {
		t.Errorf("a statement that was waited for: %v", err)
	}
	await(t, db, "the primary", func() bool { return db.Nodes()[0].Up })
}

func TestPoolerAndMaintenance(t *testing.T) {
	eachMode(t, func(t *testing.T, mode, params string) {
		c := shared.Get(t)
		database := c.Database(t)
		p := pooler(t, c.Primary(), pgbouncer.Options{Mode: mode})
		db := open(t, dbsplit.Nodes{Primary: p.URL(database) + params}, nil)
		ctx := within(t, 30*time.Second)
		exec(t, db, "create table notes (n int)")
		report, err := db.OptimizeTable(ctx, "notes", dbsplit.OptimizeOptions{Reindex: true})
		if mode == pgbouncer.Session {
			if err != nil || report.Table == "" {
				t.Errorf("%+v, %v", report, err)
			}
			return
		}
		problem, ok := errors.AsType[*admin.Problem](err)
		if !ok || problem.Status != 501 || !strings.Contains(problem.Detail, "own address") {
			t.Errorf("without a session: %v", err)
		}
	})
}

// A pooler is corrected, as the advice says, and keeps its clients: the node is let in again.
func TestPoolerIsCorrected(t *testing.T) {
	ctx := within(t, 30*time.Second)
	c := shared.Get(t)
	database := c.Database(t)
	p := pooler(t, c.Primary(), pgbouncer.Options{Mode: pgbouncer.Transaction})
	db := run(t, dbsplit.Nodes{Primary: p.URL(database) + "&node_pooler=session"}, nil)
	advised(t, db, "it is in transaction mode")
	if _, err := db.Exec(ctx, "select 1"); !errors.Is(err, dbsplit.ErrPooler) {
		t.Errorf("in transaction mode: %v", err)
	}
	_, err := p.Console(ctx, "set pool_mode = 'session'")
	must(t, err)
	db.LookAgain(0)
	await(t, db, "the node to be let in", func() bool { return db.Nodes()[0].Advice == "" })
	exec(t, db, "select 1")
	if s := served(t, ctx, db.Read()); s != "primary" {
		t.Errorf("a read was served by the %s", s)
	}
}

// A node is barred while a caller waits for a connection to it: nothing is sent, and the connection goes back.
func TestNodeIsBarredDuringTheWait(t *testing.T) {
	ctx := within(t, 30*time.Second)
	c := shared.Get(t)
	var db *dbsplit.DB
	db = open(t, nodesOf(c, c.Database(t)), &dbsplit.Options{MaxConns: 1, PrimaryReadConns: 1, AfterConnect: func(context.Context, *pgx.Conn) error {
		db.Bar(0, dbsplit.ErrPooler)
		return nil
	}})
	for name, send := range map[string]func() error{
		"a write": func() error { _, err := db.Exec(ctx, "select 1"); return err },
		"a read":  func() error { return db.Read().QueryRow(ctx, "select 1").Scan(new(int)) },
	} {
		if err := send(); !errors.Is(err, dbsplit.ErrPooler) {
			t.Errorf("%s was sent: %v", name, err)
		}
		db.Bar(0, nil)
		if err := send(); err != nil {
			t.Errorf("%s later: %v", name, err)
		}
	}
}
