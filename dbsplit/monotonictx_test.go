package dbsplit_test

import (
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
)

// What a read transaction has seen counts for reads beside it while it is still open.
func TestMonotonicReadsBesideATransaction(t *testing.T) {
	db, c, _ := settled(t, &dbsplit.Options{MonotonicReads: true})
	notes(t, db)
	for _, s := range c.Servers()[1:] {
		must(t, s.WaitCaughtUp(t.Context()))
	}
	must(t, c.Replica(0).PauseReplay(t.Context()))
	defer c.Replica(0).ResumeReplay(t.Context()) //nolint:errcheck // a test's
	exec(t, db, "insert into notes values (1)")
	must(t, c.Replica(1).WaitCaughtUp(t.Context()))
	ctx, _ := scaleaware.WithWatermark(within(t, 30*time.Second))
	const count = "select count(*)::int from notes"
	tx, err := db.Read(dbsplit.OnNode(c.Replica(1).Addr())).Begin(ctx)
	must(t, err)
	defer tx.Rollback(ctx) //nolint:errcheck // a test's
	if n := get[int](t, ctx, tx, count); n != 1 {
		t.Fatalf("the replica that replays has %d rows", n)
	}
	for range 50 {
		if n := get[int](t, ctx, db.Read(), count); n != 1 {
			t.Fatalf("beside the transaction a read finds %d rows", n)
		}
	}
}
