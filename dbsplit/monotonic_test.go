package dbsplit_test

import (
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
)

// Two replicas, one of which does not replay: whoever has read from the other one is never answered by it.
func TestMonotonicReads(t *testing.T) {
	for _, on := range []bool{false, true} {
		db, c, database := settled(t, &dbsplit.Options{MonotonicReads: on})
		other := run(t, nodesOf(c, database), &dbsplit.Options{MonotonicReads: on}) // as in another process
		notes(t, db)
		for _, s := range c.Servers()[1:] {
			must(t, s.WaitCaughtUp(t.Context()))
		}
		must(t, c.Replica(0).PauseReplay(t.Context()))
		exec(t, db, "insert into notes values (1)")
		must(t, c.Replica(1).WaitCaughtUp(t.Context()))
		const count = "select count(*)::int from notes"
		backwards := 0
		for range 100 {
			ctx, w := scaleaware.WithWatermark(within(t, 20*time.Second))
			if n := get[int](t, ctx, db.Read(dbsplit.OnNode(c.Replica(1).Addr())), count); n != 1 {
				t.Fatalf("the replica that replays has %d rows", n)
			}
			backwards += 1 - get[int](t, ctx, db.Read(), count)
			written, err := w.Written(ctx)
			must(t, err)
			elsewhere, carried := scaleaware.WithWatermark(ctx)
			for _, token := range written {
				carried.Raise(token)
			}
			backwards += 1 - get[int](t, elsewhere, other.Read(), count)
		}
		must(t, c.Replica(0).ResumeReplay(t.Context()))
		switch {
		case on && backwards > 0:
			t.Errorf("%d reads went backwards", backwards)
		case !on && backwards == 0:
			t.Error("without the option none went backwards, so this test shows nothing")
		}
	}
}

// Reads that follow each other ask nobody for a position: they stay on their replica until the monitor knows where that stands.
func TestMonotonicReadsAskNobody(t *testing.T) {
	reg := prometheus.NewRegistry()
	db, _, _ := settled(t, &dbsplit.Options{MonotonicReads: true, Registerer: reg})
	ctx, _ := scaleaware.WithWatermark(within(t, 20*time.Second))
	for range 200 {
		if s := served(t, ctx, db.Read()); s != "replica" {
			t.Fatalf("served by the %s", s)
		}
	}
	if n := counter(t, reg, "db_tokens_total", "outcome", "captured"); n != 0 {
		t.Errorf("nodes were asked for their position %v times", n)
	}
}

// A write that the monitor has sampled the primary after costs its reader no round trip.
func TestReadYourWritesAsksNobody(t *testing.T) {
	reg := prometheus.NewRegistry()
	db, c, _ := settled(t, &dbsplit.Options{Registerer: reg, ProbeInterval: 20 * time.Millisecond})
	notes(t, db)
	ctx, w := scaleaware.WithWatermark(within(t, 20*time.Second))
	exec(t, watched{db, ctx}, "insert into notes values (1)")
	await(t, db, "a sample after the write", func() bool { _, open := w.Known(); return len(open) == 0 })
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	must(t, c.Replica(1).WaitCaughtUp(ctx))
	await(t, db, "a replica that has the write", func() bool { return served(t, ctx, db.Read()) == "replica" })
	if n := get[int](t, ctx, db.Read(), "select count(*)::int from notes"); n != 1 {
		t.Errorf("the read found %d rows", n)
	}
	if n := counter(t, reg, "db_tokens_total", "outcome", "captured"); n != 0 {
		t.Errorf("the primary was asked %v times", n)
	}
	if n := counter(t, reg, "db_tokens_total", "outcome", "obeyed"); n == 0 {
		t.Error("no token was obeyed")
	}
}

// A position needs no pooled connection, and those who ask together share one question.
func TestPositionOfABusyPrimary(t *testing.T) {
	db, _, _ := settled(t, &dbsplit.Options{PrimaryReadConns: 1, MaxConns: 1})
	ctx := within(t, 20*time.Second)
	reads, err := db.Read(dbsplit.PreferPrimary()).Begin(ctx)
	must(t, err)
	defer reads.Rollback(ctx) //nolint:errcheck // a test's
	writes, err := db.Begin(ctx)
	must(t, err)
	defer writes.Rollback(ctx) //nolint:errcheck // a test's
	var askers sync.WaitGroup
	for range 50 {
		askers.Go(func() {
			if _, err := db.Position(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	askers.Wait()
}

// A caller who has read from a replica brings a write of its own at an unknown position from elsewhere: what the replica has
// replayed does not cover it.
func TestMonotonicReadsForgetNoUnknownWrite(t *testing.T) {
	db, c, _ := settled(t, &dbsplit.Options{MonotonicReads: true, ProbeInterval: time.Hour})
	notes(t, db)
	pause(t, c)
	const count = "select count(*)::int from notes"
	ctx, w := scaleaware.WithWatermark(within(t, 60*time.Second))
	get[int](t, ctx, db.Read(dbsplit.OnNode(c.Replica(0).Addr())), count)
	if _, open := w.Known(); len(open) != 1 {
		t.Fatalf("%d reads are to be asked for: it is no test", len(open))
	}
	exec(t, db, "insert into notes values (1)")
	w.Raise(scaleaware.UnknownPosition(db.System()))
	for range 2 {
		if n := get[int](t, ctx, db.Read(), count); n != 1 {
			t.Errorf("the caller sees %d of its rows", n)
		}
	}
}
