package dbsplit_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// Readers do not pile up on a replica that hangs: those that were there are answered elsewhere, and while it stays frozen
// nobody is sent to it.
func TestFrozenReplicaHoldsNobody(t *testing.T) {
	db, c, _ := settled(t, &dbsplit.Options{MaxConns: 4})
	frozen := c.Replica(0)
	t.Cleanup(frozen.Thaw)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var reads, longest atomic.Int64
	var wg sync.WaitGroup
	for range 40 { // ten for each connection
		wg.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond) // leaves the processor to others
			defer tick.Stop()
			for ; ctx.Err() == nil; <-tick.C {
				limited, cancel := context.WithTimeout(context.Background(), patience)
				begun := time.Now()
				if err := db.Read().QueryRow(limited, "select 1").Scan(nil); err != nil {
					t.Errorf("a read, after %v: %v", time.Since(begun), err)
				}
				cancel()
				took := int64(time.Since(begun))
				for old := longest.Load(); took > old && !longest.CompareAndSwap(old, took); old = longest.Load() {
				}
				reads.Add(1)
			}
		})
	}
	progress := func(n int64) {
		until := reads.Load() + n
		await(t, db, "reads", func() bool { return reads.Load() >= until })
	}
	progress(200)
	frozen.Freeze()
	await(t, db, "its ejection", func() bool { return !db.Nodes()[1].Up })
	await(t, db, "the last read to leave it", func() bool { return db.Nodes()[1].Inflight == 0 })
	for range 10 {
		progress(20)
		if n := db.Nodes()[1]; n.Inflight != 0 || n.Up {
			t.Fatalf("while it is frozen: %+v", n)
		}
	}
	stop()
	wg.Wait()
	t.Logf("%d reads, the longest took %v", reads.Load(), time.Duration(longest.Load()))
	if d := time.Duration(longest.Load()); d > patience/2 {
		t.Errorf("a read took %v", d)
	}
	frozen.Thaw()
	await(t, db, "its return", func() bool { return fresh(db) == 2 })
}

// The primary hangs: replicas answer as before, also beyond the bound, and whoever writes is not kept beyond their deadline.
func TestFrozenPrimary(t *testing.T) {
	const bound = 500 * time.Millisecond
	db, c, _ := settled(t, &dbsplit.Options{MaxStaleness: bound, FailoverWait: -1})
	notes(t, db)
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(within(t, 10*time.Second)))
	}
	ctx := within(t, 60*time.Second)
	exec(t, db, "insert into notes values (1)")
	primary := c.Primary()
	t.Cleanup(primary.Thaw)
	primary.Freeze()
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := db.Exec(limited, "insert into notes values (2)"); err == nil || limited.Err() != nil {
		t.Errorf("a write: %v", err)
	}
	await(t, db, "Ready to fail", func() bool { return db.Ready(ctx) != nil })
	await(t, db, "the bound to pass", func() bool {
		n := db.Nodes()
		return n[1].Staleness > 2*bound && n[2].Staleness > 2*bound
	})
	for range 50 {
		quick, cancel := context.WithTimeout(ctx, 5*time.Second)
		if s := served(t, quick, db.Read()); s != "replica" {
			t.Fatalf("a read was served by the %s", s)
		}
		cancel()
	}
	if err := db.Read(dbsplit.MaxStaleness(bound)).QueryRow(ctx, "select 1").Scan(nil); !errors.Is(err, dbsplit.ErrNoNode) {
		t.Errorf("a read that insists on its bound: %v", err)
	}
	primary.Thaw()
	await(t, db, "the primary", func() bool { return db.Ready(ctx) == nil && fresh(db) == 2 })
	exec(t, db, "insert into notes values (3)")
	if n := get[int](t, ctx, db, "select count(*)::int from notes where n = 2"); n > 1 {
		t.Errorf("the write on the frozen primary was applied %d times", n)
	}
}
