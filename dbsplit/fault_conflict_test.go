package dbsplit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// impatient makes a replica wait a second for those who are in the way of its replay, and returns a session that watches it.
func impatient(t *testing.T, ctx context.Context, r *pgcluster.Server, database string) *pgx.Conn {
	t.Helper()
	must(t, r.Exec(ctx, "alter system set max_standby_streaming_delay = '1s'", "select pg_reload_conf()"))
	t.Cleanup(func() {
		must(t, r.Exec(context.Background(), "alter system reset max_standby_streaming_delay", "select pg_reload_conf()"))
	})
	watch, err := r.Connect(ctx, database)
	must(t, err)
	t.Cleanup(func() { must(t, watch.Close(context.Background())) })
	return watch
}

// Whatever a read is in the way of: rows that VACUUM has removed, or a table that is emptied.
func TestConflictsOfAllKinds(t *testing.T) {
	traced := &sends{mark: "-- name: Conflicting"}
	db, c, database := settled(t, &dbsplit.Options{Tracer: traced})
	ctx := within(t, 100*time.Second)
	first := c.Replica(0)
	watch := impatient(t, ctx, first, database)
	for kind, test := range map[string]struct {
		conflict []string
		counter  string
		rows     int
	}{
		"VACUUM of what a snapshot sees": {[]string{"delete from t where n > 1", "vacuum t"}, "confl_snapshot", 1},
		"TRUNCATE":                       {[]string{"truncate t"}, "confl_lock", 0},
	} {
		exec(t, db, "drop table if exists t")
		exec(t, db, "create table t with (autovacuum_enabled = false) as select generate_series(1, 3) as n")
		for _, r := range c.Servers()[1:] {
			must(t, r.WaitCaughtUp(ctx))
		}
		await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
		conflicts := "select " + test.counter + "::int from pg_stat_database_conflicts where datname = current_database()"
		before, sent := get[int](t, ctx, watch, conflicts), traced.n.Load()
		var went routes
		type answer struct {
			rows int
			err  error
		}
		result := make(chan answer, 1)
		go func() {
			// On the first replica it sleeps before its first row.
			rows, _ := db.Read(dbsplit.Canary(first.Addr(), 1), dbsplit.OnRoute(went.note)).
				Query(ctx, "-- name: Conflicting :many\nselect n, pg_sleep(case when n = 1 and '127.0.0.1:' || inet_server_port() = $1 then 30 else 0 end)::text from t", first.Addr())
			all, err := pgx.CollectRows(rows, pgx.RowToMap)
			result <- answer{len(all), err}
		}()
		await(t, db, "the read", func() bool {
			return get[bool](t, ctx, watch, "select exists (select from pg_stat_activity where query like '-- name: Conflicting%' and state = 'active' and wait_event = 'PgSleep')")
		})
		for _, sql := range test.conflict {
			exec(t, db, sql)
		}
		got := <-result
		if got.err != nil || got.rows != test.rows {
			t.Errorf("%s: %d rows, %v", kind, got.rows, got.err)
		}
		if n := traced.n.Load() - sent; n != 2 {
			t.Errorf("%s: it was sent %d times, want 2", kind, n)
		}
		if to := went.all(); len(to) != 2 || to[0] != first.Addr() || to[1] == first.Addr() {
			t.Errorf("%s: it went to %v", kind, to)
		}
		await(t, db, "the server to count a conflict of that kind", func() bool { return get[int](t, ctx, watch, conflicts) > before })
	}
	for _, n := range db.Nodes() {
		if !n.Up {
			t.Errorf("%s counts as down", n.Name)
		}
	}
}

// A replica ends the session of a transaction that is idle in the way of its replay. Its caller is told at his next statement,
// which is not repeated: what he has read before is gone. Others are served by that replica as before.
func TestConflictWhileIdleInTransaction(t *testing.T) {
	traced := &sends{mark: "-- name: Next"}
	db, c, database := settled(t, &dbsplit.Options{Tracer: traced})
	ctx := within(t, 100*time.Second)
	first := c.Replica(0)
	watch := impatient(t, ctx, first, database)
	exec(t, db, "create table t (n int); insert into t values (1)")
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	tx, err := db.Read(dbsplit.OnNode(first.Addr())).Begin(ctx)
	must(t, err)
	defer tx.Rollback(ctx)
	pid := get[int](t, ctx, tx, "select pg_backend_pid() from t")
	exec(t, db, "truncate t")
	await(t, db, "the end of the session", func() bool {
		return get[bool](t, ctx, watch, "select not exists (select from pg_stat_activity where pid = $1)", pid)
	})
	if err := tx.QueryRow(ctx, "-- name: Next :one\nselect n from t").Scan(new(int)); err == nil || errors.Is(err, pgx.ErrNoRows) || !tx.Conn().IsClosed() {
		t.Errorf("the next statement: %v", err)
	} else {
		t.Logf("the next statement: %v", err)
	}
	if n := traced.n.Load(); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
	if err := tx.Commit(ctx); err == nil {
		t.Error("the transaction was committed")
	}
	await(t, db, "reads on that replica", func() bool {
		return db.Read(dbsplit.OnNode(first.Addr())).QueryRow(ctx, "select n from t").Scan(new(int)) == pgx.ErrNoRows
	})
	for _, n := range db.Nodes() {
		if !n.Up {
			t.Errorf("%s counts as down", n.Name)
		}
	}
}
