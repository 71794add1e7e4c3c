package dbsplit_test

import (
	"context"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// Not parallel: it makes the shared primary read-only, as a managed server does whose disk is full.
func TestWritableKnowsAPrimaryThatRefuses(t *testing.T) {
	ctx := within(t, 60*time.Second)
	c := shared.Get(t)
	db := run(t, nodesOf(c, c.Database(t)), &dbsplit.Options{ProbeInterval: 20 * time.Millisecond})
	wait := func(writable bool) {
		t.Helper()
		for (db.Writable(ctx) == nil) != writable {
			if ctx.Err() != nil {
				t.Fatalf("Writable stays %v", db.Writable(context.Background()))
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	wait(true)
	t.Cleanup(func() {
		must(t, c.Primary().Exec(context.Background(), "alter system reset default_transaction_read_only", "select pg_reload_conf()"))
	})
	must(t, c.Primary().Exec(ctx, "alter system set default_transaction_read_only = on", "select pg_reload_conf()"))
	wait(false)
	must(t, c.Primary().Exec(ctx, "alter system reset default_transaction_read_only", "select pg_reload_conf()"))
	wait(true)
}

func TestLaggingWantsAllReplicasBehind(t *testing.T) {
	ctx := within(t, 60*time.Second)
	c := shared.Get(t)
	db := run(t, nodesOf(c, c.Database(t)), &dbsplit.Options{ProbeInterval: 20 * time.Millisecond})
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	lagging := db.Lagging(500 * time.Millisecond)
	wait := func(want bool) {
		t.Helper()
		for (lagging(ctx) != nil) != want {
			if ctx.Err() != nil {
				t.Fatalf("Lagging stays %v: %+v", lagging(context.Background()), db.Nodes())
			}
			exec(t, db, "create table if not exists w ()")
			time.Sleep(5 * time.Millisecond)
		}
	}
	for i := range 2 {
		t.Cleanup(func() { must(t, c.Replica(i).ResumeReplay(context.Background())) })
	}
	must(t, c.Replica(0).PauseReplay(ctx))
	for behind := false; !behind; { // one alone is
		if ctx.Err() != nil {
			t.Fatalf("no replica falls behind: %+v", db.Nodes())
		}
		exec(t, db, "create table if not exists w ()")
		exec(t, db, "drop table w")
		for _, n := range db.Nodes() {
			behind = behind || n.Role == "replica" && n.Staleness > 500*time.Millisecond
		}
	}
	if err := lagging(ctx); err != nil {
		t.Errorf("one of two is behind: %v", err)
	}
	must(t, c.Replica(1).PauseReplay(ctx))
	for lagging(ctx) == nil && ctx.Err() == nil {
		exec(t, db, "create table if not exists w ()")
		exec(t, db, "drop table w")
		time.Sleep(5 * time.Millisecond)
	}
	if lagging(ctx) == nil {
		t.Fatalf("both are behind: %+v", db.Nodes())
	}
	must(t, c.Replica(0).ResumeReplay(ctx))
	wait(false)
}

// How far behind a replica is cannot be known if it already was when the DB was opened, but for how long it has been at least.
func TestLaggingSinceBeforeTheStart(t *testing.T) {
	ctx := within(t, 60*time.Second)
	c := shared.Get(t)
	database := c.Database(t)
	for i := range 2 {
		t.Cleanup(func() { must(t, c.Replica(i).ResumeReplay(context.Background())) })
		must(t, c.Replica(i).PauseReplay(ctx))
	}
	must(t, c.Primary().Exec(ctx, "create table w ()", "drop table w"))
	db := run(t, nodesOf(c, database), &dbsplit.Options{ProbeInterval: 20 * time.Millisecond})
	lagging := db.Lagging(500 * time.Millisecond)
	await(t, db, "both count as behind", func() bool { return lagging(ctx) != nil })
	for _, n := range db.Nodes() {
		if n.Staleness >= 0 {
			t.Errorf("the staleness of %+v cannot be known", n)
		}
	}
	for i := range 2 {
		must(t, c.Replica(i).ResumeReplay(ctx))
	}
	await(t, db, "neither does", func() bool { return lagging(ctx) == nil })
}
