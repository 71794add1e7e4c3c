package dbsplit_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// A replica that comes and goes every second is let in once in 5 s, and no read fails for it.
func TestFlappingReplica(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	p, through := proxied(t, c.Replica(0), database)
	db := run(t, dbsplit.Nodes{Primary: c.Primary().URL(database), Replicas: []string{through, c.Replica(1).URL(database)}}, nil)
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var reads, failed, there atomic.Int64
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			tick := time.NewTicker(time.Millisecond) // leaves the processor to others
			defer tick.Stop()
			for ; ctx.Err() == nil; <-tick.C {
				limited, cancel := context.WithTimeout(context.Background(), patience)
				node := ""
				r := db.Read(dbsplit.OnRoute(func(p dbsplit.Provenance) { node = p.Node }))
				if err := r.QueryRow(limited, "select 1").Scan(nil); err != nil {
					failed.Add(1)
					t.Errorf("a read: %v", err)
				} else if node == p.Addr() {
					there.Add(1)
				}
				cancel()
				reads.Add(1)
			}
		})
	}
	await(t, db, "reads on it", func() bool { return there.Load() > 20 })
	begun := time.Now()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	const cycles = 6
	admissions := 0
	for range cycles {
		p.Refuse()
		p.Reset()
		await(t, db, "its going", func() bool { return !db.Nodes()[1].Up })
		<-second.C
		before := there.Load()
		p.Heal()
		await(t, db, "its coming", func() bool { return db.Nodes()[1].Up })
		<-second.C
		if db.Nodes()[1].Advice == "" || there.Load() > before {
			admissions++
		}
	}
	took := time.Since(begun)
	stop()
	wg.Wait()
	t.Logf("in %v it came %d times and was let in %d times; %d of %d reads failed", took, cycles, admissions, failed.Load(), reads.Load())
	if most := int(took/(5*time.Second)) + 1; admissions > most || most >= cycles {
		t.Errorf("it was let in %d times of %d within %v, want at most %d", admissions, cycles, took, most)
	}
	await(t, db, "its return for good", func() bool { return fresh(db) == 2 && db.Nodes()[1].Advice == "" })
}
