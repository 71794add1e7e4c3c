package dbsplit_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
)

// Far more readers than connections: each read ends by its deadline, the monitor goes on to see, and nothing is left over.
func TestSaturation(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	reg := prometheus.NewRegistry()
	db := run(t, nodesOf(c, database), &dbsplit.Options{MaxConns: 2, ProbeTimeout: 20 * time.Second, Registerer: reg})
	direct := open(t, dbsplit.Nodes{Primary: c.Primary().URL(database)}, nil)
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	exec(t, direct, "create table t (n int)")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var good, late, worst atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for ctx.Err() == nil {
				limited, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
				deadline, _ := limited.Deadline()
				err := db.Read().QueryRow(limited, "select pg_sleep(0.05)::text").Scan(nil)
				over := int64(time.Since(deadline))
				cancel()
				switch {
				case err == nil:
					good.Add(1)
				case errors.Is(err, context.DeadlineExceeded):
					late.Add(1)
				default:
					t.Errorf("a read: %v", err)
				}
				for old := worst.Load(); over > old && !worst.CompareAndSwap(old, over); old = worst.Load() {
				}
			}
		})
	}
	for range 4 { // what is written meanwhile is seen by the monitor on every node
		done := good.Load() + 20
		await(t, db, "reads", func() bool { return good.Load() >= done })
		exec(t, direct, "insert into t values (1)")
		lsn := get[string](t, within(t, 10*time.Second), direct, "select pg_current_wal_flush_lsn()::text")
		await(t, db, "the monitor to see it", func() bool {
			for _, n := range db.Nodes() {
				if !n.Up || len(n.LSN) < len(lsn) || len(n.LSN) == len(lsn) && n.LSN < lsn {
					return false
				}
			}
			return true
		})
		must(t, db.Ready(ctx))
	}
	stop()
	wg.Wait()
	t.Logf("%d reads went well, %d ended by their deadlines, the latest %v after it", good.Load(), late.Load(), time.Duration(worst.Load()))
	if late.Load() == 0 {
		t.Error("no read had to wait: this test tests nothing")
	}
	if d := time.Duration(worst.Load()); d > 5*time.Second {
		t.Errorf("a read ended %v after its deadline", d)
	}
	for _, n := range db.Nodes() {
		if n.Inflight != 0 || !n.Up {
			t.Errorf("afterwards: %+v", n)
		}
	}
	if n := counter(t, reg, "scaleaware_background_errors_total", "task", "probe"); n != 0 {
		t.Errorf("%v probes have failed", n)
	}
}

// Equal replicas share the reads; one that answers 20 ms later gets at most a fifth of them.
func TestSlowReplicaGetsFewReads(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	slow, first := proxied(t, c.Replica(0), database)
	_, second := proxied(t, c.Replica(1), database)
	db := run(t, dbsplit.Nodes{Primary: c.Primary().URL(database), Replicas: []string{first, second}}, nil)
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	share := func(reads int) float64 {
		var there, all atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for all.Add(1) <= int64(reads) {
					node := ""
					r := db.Read(dbsplit.OnRoute(func(p dbsplit.Provenance) { node = p.Node }))
					if err := r.QueryRow(t.Context(), "select 1").Scan(nil); err != nil {
						t.Errorf("a read: %v", err)
					}
					if node == slow.Addr() {
						there.Add(1)
					}
				}
			})
		}
		wg.Wait()
		return float64(there.Load()) / float64(reads)
	}
	// Each time until it holds: while the machine is busy otherwise, replicas are not equal for a moment.
	equally := func(when string) {
		t.Helper()
		await(t, db, "an equal share "+when, func() bool { got := share(2000); return got >= 0.3 && got <= 0.7 })
	}
	equally("at first")
	slow.Delay(faultconn.ToClient, 20*time.Millisecond)
	share(200)
	few := share(4000)
	slow.Heal()
	equally("when its slow answers are forgotten")
	if few > 0.2 || few == 0 {
		t.Errorf("the slow replica got %.1f %% of the reads, want some, and at most 20 %%", 100*few)
	}
}

// Connections to a replica that are reset again and again, and an answer that takes its time, cost no read.
func TestResetsCostNoRead(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	p, through := proxied(t, c.Replica(0), database)
	db := run(t, dbsplit.Nodes{Primary: c.Primary().URL(database), Replicas: []string{through, c.Replica(1).URL(database)}}, nil)
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var reads, there atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				limited, cancel := context.WithTimeout(context.Background(), patience)
				node := ""
				r := db.Read(dbsplit.OnRoute(func(p dbsplit.Provenance) { node = p.Node }))
				if err := r.QueryRow(limited, "select pg_sleep(0.002)::text").Scan(nil); err != nil {
					t.Errorf("a read: %v", err)
				} else if node == p.Addr() {
					there.Add(1)
				}
				cancel()
				reads.Add(1)
			}
		})
	}
	for range 20 {
		until := there.Load() + 1
		await(t, db, "a read through the proxy", func() bool { return there.Load() >= until || db.Nodes()[1].Advice != "" })
		p.Reset()
		next := reads.Load() + 10
		await(t, db, "reads", func() bool { return reads.Load() >= next })
	}
	p.Delay(faultconn.Both, 100*time.Millisecond)
	next := reads.Load() + 100
	await(t, db, "reads", func() bool { return reads.Load() >= next })
	if n := db.Nodes()[1]; !n.Up && n.Advice == "" {
		t.Errorf("with 100 ms of delay: %+v", n)
	}
	stop()
	wg.Wait()
	p.Heal()
	await(t, db, "the replica", func() bool { return fresh(db) == 2 })
}
