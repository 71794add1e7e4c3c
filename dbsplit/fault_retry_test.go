package dbsplit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// sends counts the statements that hold a mark, as they are sent.
type sends struct {
	mark string
	n    atomic.Int64
}

func (s *sends) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, s.mark) {
		s.n.Add(1)
	}
	return ctx
}

func (*sends) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// routes notes which nodes reads were sent to.
type routes struct {
	mu    sync.Mutex
	nodes []string
}

func (r *routes) note(p dbsplit.Provenance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes = append(r.nodes, p.Node)
}

func (r *routes) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes
}

// A read that a replica cancels for its replay is sent once more, elsewhere, and the caller sees nothing of it.
func TestRecoveryConflictIsRetriedOnce(t *testing.T) {
	traced := &sends{mark: "-- name: Conflicting"}
	db, c, _ := settled(t, &dbsplit.Options{Tracer: traced})
	ctx := within(t, 60*time.Second)
	first := c.Replica(0)
	must(t, first.Exec(ctx, "alter system set max_standby_streaming_delay = '10ms'", "select pg_reload_conf()"))
	t.Cleanup(func() {
		must(t, first.Exec(context.Background(), "alter system reset max_standby_streaming_delay", "select pg_reload_conf()"))
	})
	exec(t, db, "create table t (n int); insert into t values (1)")
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	var went routes
	result := make(chan error, 1)
	go func() {
		result <- db.Read(dbsplit.Canary(first.Addr(), 1), dbsplit.OnRoute(went.note)).
			QueryRow(ctx, "-- name: Conflicting :one\nselect n, pg_sleep(0.5)::text from t").Scan(new(int), new(string))
	}()
	watch, err := first.Connect(ctx, "postgres")
	must(t, err)
	defer watch.Close(context.Background())
	await(t, db, "the read", func() bool {
		return get[bool](t, ctx, watch, "select exists (select from pg_stat_activity where query like '-- name: Conflicting%' and state = 'active' and wait_event = 'PgSleep')")
	})
	exec(t, db, "alter table t add column m int")
	if err := <-result; err != nil {
		t.Errorf("the read: %v", err)
	}
	if n := traced.n.Load(); n != 2 {
		t.Errorf("it was sent %d times, want 2", n)
	}
	if to := went.all(); len(to) != 2 || to[0] != first.Addr() || to[1] == first.Addr() {
		t.Errorf("it went to %v", to)
	}
	for _, n := range db.Nodes() {
		if !n.Up {
			t.Errorf("%s counts as down", n.Name)
		}
	}
}

// A read that both replicas cancel for their replay is sent to the primary, once, if it may go there.
func TestRecoveryConflictsEndAtThePrimary(t *testing.T) {
	traced := &sends{mark: "-- name: Conflicting"}
	db, c, database := settled(t, &dbsplit.Options{Tracer: traced})
	ctx := within(t, 100*time.Second)
	exec(t, db, "create table t (n int); insert into t values (1)")
	var watches []*pgx.Conn
	for _, r := range c.Servers()[1:] {
		must(t, r.Exec(ctx, "alter system set max_standby_streaming_delay = '10ms'", "select pg_reload_conf()"))
		t.Cleanup(func() {
			must(t, r.Exec(context.Background(), "alter system reset max_standby_streaming_delay", "select pg_reload_conf()"))
		})
		must(t, r.WaitCaughtUp(ctx))
		watch, err := r.Connect(ctx, database)
		must(t, err)
		t.Cleanup(func() { must(t, watch.Close(context.Background())) })
		watches = append(watches, watch)
	}
	primary, first, second := c.Primary().Addr(), c.Replica(0).Addr(), c.Replica(1).Addr()
	for name, way := range map[string]struct {
		opts []dbsplit.ReadOption
		want []string
		fine bool
	}{
		"by default":           {nil, []string{first, second, primary}, true},
		"within a bound":       {[]dbsplit.ReadOption{dbsplit.MaxStaleness(time.Minute)}, []string{first, second, primary}, true},
		"sparing the primary":  {[]dbsplit.ReadOption{dbsplit.FallBack(dbsplit.FallbackStale)}, []string{first, second}, false},
		"from replicas within": {[]dbsplit.ReadOption{dbsplit.FallBack(dbsplit.FallbackNone)}, []string{first, second}, false},
		"from one node":        {[]dbsplit.ReadOption{dbsplit.OnNode(first)}, []string{first}, false},
	} {
		await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
		var went routes
		result := make(chan error, 1)
		before := traced.n.Load()
		go func() {
			rows, _ := db.Read(append(way.opts, dbsplit.Canary(first, 1), dbsplit.OnRoute(went.note))...).
				Query(ctx, "-- name: Conflicting :many\nselect n, pg_sleep(1.5)::text from t")
			_, err := pgx.CollectRows(rows, pgx.RowToMap)
			result <- err
		}()
		for i := range min(len(way.want), 2) {
			await(t, db, "the read", func() bool {
				return get[bool](t, ctx, watches[i], "select exists (select from pg_stat_activity where query like '-- name: Conflicting%' and state = 'active' and wait_event = 'PgSleep')")
			})
			exec(t, db, "alter table t add column m int; alter table t drop column m")
		}
		if err := <-result; (err == nil) != way.fine || err != nil && !pgcluster.Conflicted(err) {
			t.Errorf("%s: %v", name, err)
		}
		if n := traced.n.Load() - before; n != int64(len(way.want)) {
			t.Errorf("%s: it was sent %d times, want %d", name, n, len(way.want))
		}
		if to := went.all(); !slices.Equal(to, way.want) {
			t.Errorf("%s: it went to %v, want %v", name, to, way.want)
		}
	}
}

// What PostgreSQL answers decides whether a read is sent once more, and to where it was sent: a cancelled statement never,
// a serialization failure only when it was a replica's, and nothing else that a statement has earned by itself. A write
// never is.
func TestWhatIsSentAgain(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	traced := &sends{mark: "raise_state('"}
	db := run(t, nodesOf(c, database), &dbsplit.Options{Tracer: traced})
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	ctx := within(t, 60*time.Second)
	exec(t, db, "create function raise_state(text) returns int language plpgsql as $$begin raise exception using errcode = $1; end$$")
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	for state, want := range map[string]struct{ onReplica, onPrimary int64 }{
		"40001": {3, 1}, // two replicas, then the primary
		"57014": {1, 1},
		"40P01": {1, 1},
		"25006": {1, 1},
		"42P01": {1, 1},
		"23505": {1, 1},
		"0A000": {1, 1},
		"57P01": {1, 1}, // as a plain error: the connection lives, so nothing was lost
		"08006": {1, 1},
	} {
		sql := fmt.Sprintf("select raise_state('%s')", state)
		for name, way := range map[string]struct {
			send func() error
			want int64
		}{
			"QueryRow on a replica":     {func() error { return db.Read().QueryRow(ctx, sql).Scan(nil) }, want.onReplica},
			"QueryRow on the primary":   {func() error { return db.Read(dbsplit.PreferPrimary()).QueryRow(ctx, sql).Scan(nil) }, want.onPrimary},
			"Exec on a replica":         {func() error { _, err := db.Read().Exec(ctx, sql); return err }, want.onReplica},
			"QueryRow, which may write": {func() error { return db.QueryRow(ctx, sql).Scan(nil) }, 1},
			"Exec, which may write":     {func() error { _, err := db.Exec(ctx, sql); return err }, 1},
			"Query on a replica": {func() error {
				rows, _ := db.Read().Query(ctx, sql)
				_, err := pgx.CollectRows(rows, pgx.RowTo[int])
				return err
			}, want.onReplica},
			"Query, which may write": {func() error {
				rows, _ := db.Query(ctx, sql)
				_, err := pgx.CollectRows(rows, pgx.RowTo[int])
				return err
			}, 1},
		} {
			before := traced.n.Load()
			if err := way.send(); err == nil {
				t.Errorf("%s, %s: no error", state, name)
			}
			if n := traced.n.Load() - before; n != way.want {
				t.Errorf("%s, %s: sent %d times, want %d", state, name, n, way.want)
			}
		}
	}
}

// The primary is asked once: when it fails as well, that is the caller's error.
func TestRecoveryConflictsAndTheLossOfThePrimary(t *testing.T) {
	t.Parallel()
	db, c, _ := settled(t, nil)
	ctx := within(t, 60*time.Second)
	exec(t, db, `create function conflict_or_die() returns int language plpgsql as $$begin
		if pg_is_in_recovery() then raise exception using errcode = '40001'; end if;
		perform pg_terminate_backend(pg_backend_pid()); return 1; end$$`)
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	err := db.Read().QueryRow(ctx, "select conflict_or_die()").Scan(nil)
	if pgErr := new(pgconn.PgError); !errors.As(err, &pgErr) || pgErr.Code != "57P01" || errors.Is(err, dbsplit.ErrNoNode) {
		t.Errorf("the caller gets %v", err)
	}
}
