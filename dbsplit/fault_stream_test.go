package dbsplit_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// An ALTER TABLE that the primary has not committed blocks the reads of that table on every replica. They end by their
// deadlines; no node is blamed for it, and reads of other tables go on.
func TestBlockedTableIsNoDeadNode(t *testing.T) {
	var log syncBuffer
	reg := prometheus.NewRegistry()
	const patience = 3 * time.Second // with a node, more than a busy machine needs to answer
	db, c, _ := settled(t, &dbsplit.Options{ProbeTimeout: patience, Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: reg})
	ctx := within(t, 60*time.Second)
	exec(t, db, "create table blocked (n int); create table other (n int); insert into other values (1)")
	tx, err := db.Begin(ctx)
	must(t, err)
	defer tx.Rollback(context.Background())
	exec(t, tx, "alter table blocked add column m int")
	exec(t, db, "insert into other values (2)") // the lock travels with the log
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	before := db.Nodes()
	var wg sync.WaitGroup
	const blocked = 6
	var ended atomic.Int64
	for range blocked {
		wg.Go(func() {
			limited, cancel := context.WithTimeout(ctx, patience+500*time.Millisecond)
			defer cancel()
			err := db.Read().QueryRow(limited, "select count(*)::int from blocked").Scan(new(int))
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a read of the blocked table: %v", err)
			}
			ended.Add(1)
		})
	}
	for reads := 0; ended.Load() < blocked || reads < 10; reads++ {
		for _, r := range c.Servers()[1:] { // one that has just run out on each
			brief, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			if err := db.Read(dbsplit.OnNode(r.Addr())).QueryRow(brief, "select count(*)::int from blocked").Scan(new(int)); err == nil {
				t.Error("a read of the blocked table went well")
			}
			cancel()
		}
		if s := served(t, ctx, db.Read()); s != "replica" {
			t.Fatalf("a read of another table was served by the %s", s)
		}
		if n := get[int](t, ctx, db.Read(), "select count(*)::int from other"); n != 2 {
			t.Fatalf("%d rows of the other table", n)
		}
		for _, n := range db.Nodes() {
			if !n.Up {
				t.Fatalf("%s counts as down: %+v", n.Name, n)
			}
		}
	}
	wg.Wait()
	if n := counter(t, reg, "scaleaware_background_errors_total", "task", "probe"); n != 0 || strings.Contains(log.String(), "node is down") {
		t.Errorf("%v probes have failed (before: %+v): %s", n, before, log.String())
	}
	must(t, tx.Commit(ctx))
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	if n := get[int](t, ctx, db.Read(), "select count(m)::int from blocked"); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// Nobody writes for three times the bound, or for a minute in a soak: replicas do not become stale by that.
func TestIdlePrimary(t *testing.T) {
	const bound = time.Second
	idle := 3 * bound
	if os.Getenv("SCALEAWARE_SOAK") != "" {
		idle = time.Minute
	}
	db, c, _ := settled(t, &dbsplit.Options{MaxStaleness: bound})
	ctx := within(t, idle+60*time.Second)
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	onReplicas, reads, worst := 0, 0, time.Duration(0)
	for begun := time.Now(); time.Since(begun) < idle; <-tick.C {
		if served(t, ctx, db.Read()) == "replica" {
			onReplicas++
		}
		reads++
		for _, n := range db.Nodes()[1:] {
			worst = max(worst, n.Staleness)
		}
	}
	t.Logf("%d of %d reads on replicas, the largest bound was %v", onReplicas, reads, worst)
	if onReplicas*10 < reads*9 { // a probe may come late on a busy machine
		t.Errorf("%d of %d reads on replicas", onReplicas, reads)
	}
	await(t, db, "fresh replicas", func() bool {
		n := db.Nodes()
		return n[1].Staleness >= 0 && n[1].Staleness < bound && n[2].Staleness >= 0 && n[2].Staleness < bound
	})
}

// The promise behind a bound: what was committed that long before a read began is seen by it, whatever happens to the
// replicas meanwhile.
func TestStalenessIsBounded(t *testing.T) {
	const bound = time.Second
	db, c, _ := settled(t, &dbsplit.Options{MaxStaleness: bound})
	ctx := within(t, 90*time.Second)
	exec(t, db, "create table t (n int); insert into t values (0)")
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	type commit struct {
		at time.Time
		n  int
	}
	var mu sync.Mutex
	var commits []commit
	due := func(at time.Time) (n int) { // what a read that begins at that time must see
		mu.Lock()
		defer mu.Unlock()
		for i := len(commits) - 1; i >= 0; i-- {
			if commits[i].at.Before(at.Add(-bound)) {
				return commits[i].n
			}
		}
		return 0
	}
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 1; running.Err() == nil; n++ {
			if _, err := db.Exec(ctx, "update t set n = $1", n); err != nil {
				t.Errorf("write: %v", err)
			}
			mu.Lock()
			commits = append(commits, commit{time.Now(), n})
			mu.Unlock()
			<-tick.C
		}
	})
	var reads, wrong atomic.Int64
	var last sync.Map // node → when a read was last sent to it
	for range 2 {
		wg.Go(func() {
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for ; running.Err() == nil; <-tick.C {
				begun, n := time.Now(), 0
				r := db.Read(dbsplit.OnRoute(func(p dbsplit.Provenance) { last.Store(p.Node, time.Now()) }))
				if err := r.QueryRow(ctx, "select n from t").Scan(&n); err != nil {
					t.Errorf("read: %v", err)
				}
				if must := due(begun); n < must && wrong.Add(1) < 5 {
					t.Errorf("a read saw %d, and %d was committed %v before it", n, must, bound)
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
	for name, fault := range map[string]struct{ begin, end func(context.Context) error }{
		"cut":    {c.Replica(0).CutStream, c.Replica(0).RestoreStream},
		"paused": {c.Replica(0).PauseReplay, c.Replica(0).ResumeReplay},
		"late": {
			func(ctx context.Context) error { return c.Replica(0).SetApplyDelay(ctx, 5*time.Second) },
			func(ctx context.Context) error { return c.Replica(0).SetApplyDelay(ctx, 0) },
		},
	} {
		must(t, fault.begin(ctx))
		begun := time.Now()
		healed := false
		heal := func() {
			if !healed {
				healed = true
				must(t, fault.end(context.Background()))
			}
		}
		t.Cleanup(heal)
		await(t, db, "the end of its bound", func() bool { return db.Nodes()[1].Staleness > bound+bound/2 })
		at, _ := last.Load(c.Replica(0).Addr())
		left := at.(time.Time).Sub(begun)
		t.Logf("%s: out of rotation after %v", name, left)
		if left > 3*bound {
			t.Errorf("%s: the replica still had reads %v after it", name, left)
		}
		progress(100)
		heal()
		await(t, db, "its return", func() bool {
			again, _ := last.Load(c.Replica(0).Addr())
			return again.(time.Time).After(at.(time.Time)) && db.Nodes()[1].Staleness < bound/2
		})
	}
	progress(100)
	stop()
	wg.Wait()
	t.Logf("%d reads, %d of them wrong", reads.Load(), wrong.Load())
}
