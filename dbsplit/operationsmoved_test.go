package dbsplit_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// Operations write where writes go: not to an old primary that lives on, and what it answers after the promotion counts for
// no success.
func TestOperationsWhileWritesMove(t *testing.T) {
	t.Parallel()
	ctx := within(t, 80*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	db := run(t, nodesOf(c, "postgres"), nil)
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	// What they do waits while somebody holds the lock 7.
	for _, sql := range []string{
		`create function hold(n int) returns int language plpgsql immutable as $$ begin
			while not pg_try_advisory_xact_lock_shared(7) loop perform pg_sleep(0.01); end loop; return n; end $$`,
		"create function hold_ddl() returns event_trigger language plpgsql as 'begin perform hold(1); end'",
		"create table events (at timestamptz not null) partition by range (at)",
		"create table dead (at date not null) partition by range (at)",
		"create table dead_1 partition of dead for values from ('2020-01-01') to ('2020-02-01')",
		"create table t (n int); insert into t values (1); create index on t (hold(n))",
		"create event trigger hold on ddl_command_end execute function hold_ddl()",
	} {
		exec(t, db, sql)
	}
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	old, err := c.Primary().Connect(ctx, "postgres")
	must(t, err)
	defer old.Close(context.Background())
	tables := func() int {
		return get[int](t, ctx, old, "select count(*)::int from pg_inherits where inhparent in ('events'::regclass, 'dead'::regclass)")
	}
	_, err = old.Exec(ctx, "select pg_advisory_lock(7)")
	must(t, err)
	held := map[string]struct {
		do   func() error
		want error
	}{
		"EnsurePartitions": {func() error { _, err := db.EnsurePartitions(ctx, "events", 1, false); return err }, dbsplit.ErrNotPrimary},
		"DetachPartitions": {func() error {
			_, err := db.DetachPartitions(ctx, "dead", dbsplit.DetachOptions{KeepMonths: 1})
			return err
		}, dbsplit.ErrOutcomeUnknown},
		"OptimizeTable": {func() error { _, err := db.OptimizeTable(ctx, "t", dbsplit.OptimizeOptions{}); return err }, dbsplit.ErrOutcomeUnknown},
	}
	type end struct {
		name string
		err  error
	}
	ends := make(chan end, len(held))
	for name, op := range held {
		go func() { ends <- end{name, op.do()} }()
	}
	await(t, db, "the operations", func() bool {
		return get[int](t, ctx, old, "select count(*)::int from pg_stat_activity where wait_event = 'PgSleep'") == len(held)
	})
	must(t, c.Replica(0).Promote(ctx))
	await(t, db, "writes to move", func() bool { return db.Nodes()[1].Role == "primary" })
	_, err = old.Exec(ctx, "select pg_advisory_unlock(7)")
	must(t, err)
	for range held {
		if e := <-ends; !errors.Is(e.err, held[e.name].want) {
			t.Errorf("%s was answered by the old primary: %v", e.name, e.err)
		}
	}
	if n := get[int](t, ctx, old, "select count(*)::int from pg_inherits where inhparent = 'events'::regclass"); n != 0 {
		t.Errorf("%d partitions were made on the old primary", n)
	}

	// A process that starts now has the old primary configured, which lives.
	before := tables()
	for name, do := range map[string]func(late *dbsplit.DB) error{
		"EnsurePartitions": func(late *dbsplit.DB) error { _, err := late.EnsurePartitions(ctx, "events", 1, false); return err },
		"OptimizeTable": func(late *dbsplit.DB) error {
			_, err := late.OptimizeTable(ctx, "t", dbsplit.OptimizeOptions{})
			return err
		},
	} {
		late := run(t, nodesOf(c, "postgres"), nil)
		await(t, late, "the start", func() bool { return late.Nodes()[0].Advice != "the monitor is not running: call Run" })
		vacuums := get[int](t, ctx, old, "select coalesce(sum(vacuum_count), 0)::int from pg_stat_user_tables")
		must(t, do(late))
		if n := tables(); n != before {
			t.Errorf("%s: the old primary had %d partitions, and has %d", name, before, n)
		}
		if n := get[int](t, ctx, old, "select coalesce(sum(vacuum_count), 0)::int from pg_stat_user_tables"); n != vacuums {
			t.Errorf("%s has vacuumed on the old primary", name)
		}
	}
}

// While several servers take writes on one timeline, operations that write are refused, and those that look are not.
func TestOperationsWithTwoPrimaries(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	db := run(t, nodesOf(c, "postgres"), nil)
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	exec(t, db, "create table events (at timestamptz not null) partition by range (at)")
	rival := c.Replica(0)
	must(t, rival.WaitCaughtUp(ctx))
	exec(t, db, "select 1") // a connection is idle
	must(t, rival.Stop(ctx))
	must(t, os.Remove(filepath.Join(rival.Dir(), "standby.signal")))
	must(t, rival.Start(ctx))
	await(t, db, "the rival", func() bool { return db.Nodes()[1].Role == "rival" && db.Nodes()[1].Up })
	for name, do := range map[string]func() error{
		"EnsurePartitions": func() error { _, err := db.EnsurePartitions(ctx, "events", 1, false); return err },
		"MoveDefaultRows":  func() error { _, err := db.MoveDefaultRows(ctx, "events", dbsplit.MoveOptions{}); return err },
		"DetachPartitions": func() error {
			_, err := db.DetachPartitions(ctx, "events", dbsplit.DetachOptions{KeepMonths: 1})
			return err
		},
		"OptimizeTable": func() error { _, err := db.OptimizeTable(ctx, "events", dbsplit.OptimizeOptions{}); return err },
	} {
		if err := do(); !errors.Is(err, dbsplit.ErrTwoPrimaries) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := acquireAllIdle(ctx, db); n != 0 {
		t.Errorf("AcquireAllIdle: %d connections", n)
	}
	r, err := db.Partitions(ctx, "events")
	if err != nil || len(r.Partitions) != 0 {
		t.Errorf("Partitions: %+v, %v", r, err)
	}
}
