package dbsplit_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// A replica is promoted while the old primary lives on and still takes whatever it is sent.
func TestPromotionBesideTheLivingPrimary(t *testing.T) {
	t.Parallel()
	ctx := within(t, 80*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs())
		}
	})
	near := run(t, nodesOf(c, "postgres"), &dbsplit.Options{MaxConns: 8})
	wall, through := proxied(t, c.Replica(0), "postgres")
	behindWall := dbsplit.Nodes{Primary: c.Primary().URL("postgres"), Replicas: []string{through}}
	far := run(t, behindWall, nil)
	unwatched := open(t, dbsplit.Nodes{Primary: c.Primary().URL("postgres")}, nil)
	for _, db := range []*dbsplit.DB{near, far} {
		await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	}
	notes(t, near)
	for _, sql := range []string{
		"create function hold() returns trigger language plpgsql as 'begin perform pg_advisory_xact_lock_shared(7); return null; end'",
		"create table slow (n int)",
		"create constraint trigger t after insert on slow deferrable initially deferred for each row execute function hold()",
	} {
		exec(t, near, sql)
	}
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	old, err := c.Primary().Connect(ctx, "postgres")
	must(t, err)
	defer old.Close(context.Background())
	_, err = old.Exec(ctx, "select pg_advisory_lock(7)")
	must(t, err)
	opened, err := near.Begin(ctx)
	must(t, err)
	defer opened.Rollback(context.Background())
	exec(t, opened, "insert into notes values (2)")
	held := map[string]func() error{
		"Exec": func() error { _, err := near.Exec(ctx, "insert into slow values (1)"); return err },
		"QueryRow": func() error {
			return near.QueryRow(ctx, "insert into slow values (1) returning n").Scan(new(int))
		},
		"Query": func() error {
			rows, _ := near.Query(ctx, "insert into slow values (1) returning n")
			_, err := pgx.CollectRows(rows, pgx.RowTo[int])
			return err
		},
		"InTx": func() error {
			return near.InTx(ctx, func(tx pgx.Tx) error { _, err := tx.Exec(ctx, "insert into slow values (1)"); return err })
		},
	}
	type end struct {
		name string
		err  error
	}
	ends := make(chan end, len(held))
	for name, write := range held {
		go func() { ends <- end{name, write()} }()
	}
	await(t, near, "the writes", func() bool {
		return get[int](t, ctx, old, "select count(*)::int from pg_locks where locktype = 'advisory' and not granted") == len(held)
	})

	wall.Refuse()
	wall.Reset()
	must(t, c.Replica(0).Promote(ctx))
	await(t, near, "writes to move", func() bool { return near.Nodes()[1].Role == "primary" })

	if err := opened.Commit(ctx); !errors.Is(err, dbsplit.ErrNotPrimary) {
		t.Errorf("a transaction on the old primary was committed: %v", err)
	}
	if n := get[int](t, ctx, old, "select count(*)::int from notes"); n != 0 {
		t.Errorf("%d rows on the old primary", n)
	}
	_, err = old.Exec(ctx, "select pg_advisory_unlock(7)")
	must(t, err)
	for range held {
		if e := <-ends; !errors.Is(e.err, dbsplit.ErrOutcomeUnknown) {
			t.Errorf("%s was answered by the old primary: %v", e.name, e.err)
		}
	}

	session, w := scaleaware.WithWatermark(ctx)
	exec(t, watched{near, session}, "insert into notes values (1)")
	tokens, err := w.Written(session)
	must(t, err)
	for name, r := range map[string]*dbsplit.Reader{
		"watching": far.Read(), "watching, the primary preferred": far.Read(dbsplit.PreferPrimary()), "not watching": unwatched.Read(),
	} {
		elsewhere, carried := scaleaware.WithWatermark(ctx)
		for _, token := range tokens {
			carried.Raise(token)
		}
		var n int
		if err := r.QueryRow(elsewhere, "select count(*)::int from notes").Scan(&n); !errors.Is(err, dbsplit.ErrNoNode) || !strings.Contains(err.Error(), "timeline 2") {
			t.Errorf("%s: a read that cannot reach the promoted server found %d rows, %v", name, n, err)
		}
	}
	wall.Heal()
	elsewhere, carried := scaleaware.WithWatermark(ctx)
	for _, token := range tokens {
		carried.Raise(token)
	}
	await(t, far, "the read", func() bool {
		var n int
		err := far.Read().QueryRow(elsewhere, "select count(*)::int from notes").Scan(&n)
		if err == nil && n != 1 || err != nil && !errors.Is(err, dbsplit.ErrNoNode) {
			t.Fatalf("%d rows, %v", n, err)
		}
		return err == nil
	})

	// A process that starts now has the old primary configured, which lives.
	late := run(t, nodesOf(c, "postgres"), nil)
	await(t, late, "the start", func() bool { return late.Nodes()[0].Advice != "the monitor is not running: call Run" })
	exec(t, late, "insert into notes values (4)")
	if n := get[int](t, ctx, old, "select count(*)::int from notes where n = 4"); n != 0 {
		t.Error("a new process has written to the old primary")
	}
}
