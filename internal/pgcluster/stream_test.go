package pgcluster_test

import (
	"context"
	"errors"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"testing"
	"time"
)

func TestPauseHoldsRowsBack(t *testing.T) {
	c := shared.Get(t)
	database, primary := notes(t, c)
	paused, other := c.Replica(0), c.Replica(1)
	ctx := within(t, 20*time.Second)
	must(t, paused.PauseReplay(ctx))
	execute(t, primary, "insert into notes values (2)")
	must(t, other.WaitCaughtUp(ctx))
	if n := get[int](t, connect(t, other, database), count); n != 2 {
		t.Errorf("the other replica has %d rows, want 2", n)
	}
	brief, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := paused.WaitCaughtUp(brief); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a paused replica: %v", err)
	}
	conn := connect(t, paused, database)
	if n := get[int](t, conn, count); n != 1 {
		t.Errorf("the paused replica has %d rows, want 1", n)
	}
	if !get[bool](t, conn, "select exists (select from pg_stat_wal_receiver)") {
		t.Error("the paused replica does not receive")
	}
	must(t, paused.ResumeReplay(ctx))
	must(t, paused.WaitCaughtUp(ctx))
	if n := get[int](t, conn, count); n != 2 {
		t.Errorf("the resumed replica has %d rows, want 2", n)
	}
}

func TestCutAndRestoreStream(t *testing.T) {
	c := shared.Get(t)
	database, primary := notes(t, c)
	cut := c.Replica(1)
	ctx := within(t, 20*time.Second)
	must(t, cut.CutStream(ctx))
	execute(t, primary, "insert into notes values (2)")
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	conn := connect(t, cut, database)
	if get[bool](t, conn, "select exists (select from pg_stat_wal_receiver)") {
		t.Error("a receiver is there")
	}
	if n := get[int](t, conn, count); n != 1 {
		t.Errorf("the cut replica has %d rows, want 1", n)
	}
	must(t, cut.RestoreStream(ctx))
	must(t, cut.WaitCaughtUp(ctx))
	if n := get[int](t, conn, count); n != 2 {
		t.Errorf("the restored replica has %d rows, want 2", n)
	}
}

func TestApplyDelay(t *testing.T) {
	c := shared.Get(t)
	database, primary := notes(t, c)
	delayed := c.Replica(0)
	ctx := within(t, 20*time.Second)
	must(t, delayed.SetApplyDelay(ctx, time.Hour))
	execute(t, primary, "insert into notes values (2)")
	must(t, c.Replica(1).WaitCaughtUp(ctx))
	conn := connect(t, delayed, database)
	if n := get[int](t, conn, count); n != 1 {
		t.Errorf("the delayed replica has %d rows, want 1", n)
	}
	must(t, delayed.SetApplyDelay(ctx, 0))
	must(t, delayed.WaitCaughtUp(ctx))
	if n := get[int](t, conn, count); n != 2 {
		t.Errorf("the replica has %d rows without delay, want 2", n)
	}
}

// What an old primary wrote beside a new one is gone when it is that one's replica.
func TestRebuild(t *testing.T) {
	c, err := pgcluster.Start(within(t, time.Minute), &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	database, primary := notes(t, c)
	old, heir := c.Primary(), c.Replica(0)
	ctx := within(t, 30*time.Second)
	if err := old.Rebuild(ctx, heir); err == nil {
		t.Error("a server that runs was rebuilt")
	}
	must(t, heir.WaitCaughtUp(ctx))
	must(t, heir.Promote(ctx))
	execute(t, primary, "insert into notes values (2)")
	execute(t, connect(t, heir, database), "insert into notes values (3), (4)")
	old.Kill()
	must(t, old.Rebuild(ctx, heir))
	if n := get[int](t, connect(t, old, database), count); n != 3 {
		t.Errorf("the old primary has %d rows, want the new one's 3", n)
	}
	execute(t, connect(t, heir, database), "insert into notes values (5)")
	must(t, old.WaitCaughtUp(ctx))
}

// An idle primary's insert position is behind a page's header now and then.
func TestWaitCaughtUpAtAPageBoundary(t *testing.T) {
	c := shared.Get(t)
	ctx := within(t, 20*time.Second)
	for range 3 {
		// The rest of the segment is filled, and the next begins with its header.
		must(t, c.Primary().Exec(ctx, "create table if not exists filler (n int)", "insert into filler values (1)", "select pg_switch_wal()"))
		for _, s := range c.Servers()[1:] {
			must(t, s.WaitCaughtUp(ctx))
		}
	}
}

func TestReplicaVerbsOnThePrimary(t *testing.T) {
	c := shared.Get(t)
	for name, verb := range map[string]func(context.Context) error{
		"CutStream": c.Primary().CutStream, "RestoreStream": c.Primary().RestoreStream,
		"Promote": c.Primary().Promote, "WaitCaughtUp": c.Primary().WaitCaughtUp,
		"PauseReplay": c.Primary().PauseReplay,
	} {
		if err := verb(within(t, 10*time.Second)); err == nil {
			t.Errorf("%s on the primary succeeded", name)
		}
	}
}
