package dbsplit_test

import (
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// Clocks of servers that are set by an hour, either way, change nothing: how stale a replica is, is measured by positions in the log
// and the clock of this process alone.
func TestClocksThatAreSet(t *testing.T) {
	t.Parallel()
	const bound = time.Second
	ctx := within(t, 3*time.Minute)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1, Clocks: true})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	db := run(t, nodesOf(c, "postgres"), &dbsplit.Options{MaxStaleness: bound})
	replica := dbsplit.OnNode(c.Replica(0).Addr())
	exec(t, db, "create table t (n int); insert into t values (0)")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	n := 0
	write := func() {
		n++
		exec(t, db, "update t set n = $1", n)
	}
	current := func() bool { s := db.Nodes()[1].Staleness; return s >= 0 && s < bound/2 }
	for _, who := range []*pgcluster.Server{c.Primary(), c.Replica(0)} {
		for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
			await(t, db, "a fresh replica", current)
			must(t, who.SetClock(ahead))
			apart := func() time.Duration {
				write()
				must(t, c.Replica(0).WaitCaughtUp(ctx))
				return get[time.Duration](t, ctx, db.Read(replica, dbsplit.MaxStaleness(time.Hour)), "select clock_timestamp() - pg_last_xact_replay_timestamp()")
			}
			await(t, db, "the clocks to differ", func() bool { return apart().Abs() > 50*time.Minute })

			worst, onReplica, reads := time.Duration(0), 0, 0
			for begun := time.Now(); time.Since(begun) < 3*bound; <-tick.C {
				write()
				mine, _ := scaleaware.WithWatermark(ctx)
				_, err := db.Exec(mine, "update t set n = n")
				must(t, err)
				if got := get[int](t, mine, db.Read(), "select n from t"); got != n {
					t.Fatalf("%s %v: read %d after writing %d", who.Name(), ahead, got, n)
				}
				if served(t, ctx, db.Read()) == "replica" {
					onReplica++
				}
				reads++
				worst = max(worst, db.Nodes()[1].Staleness)
			}
			t.Logf("%s %v: apart by %v, %d of %d reads on the replica, stale by %v at most", who.Name(), ahead, apart(), onReplica, reads, worst)
			if onReplica*10 < reads*9 {
				t.Errorf("%s %v: %d of %d reads on the replica", who.Name(), ahead, onReplica, reads)
			}

			must(t, c.Replica(0).PauseReplay(ctx))
			write()
			paused := time.Now()
			await(t, db, "the replica to be too old", func() bool { return db.Nodes()[1].Staleness > bound })
			if took := time.Since(paused); took > 5*bound {
				t.Errorf("%s %v: that took %v", who.Name(), ahead, took)
			}
			if got := get[int](t, ctx, db.Read(), "select n from t"); got != n {
				t.Errorf("%s %v: read %d, written %v ago, after %d", who.Name(), ahead, got, time.Since(paused), n)
			}
			must(t, c.Replica(0).ResumeReplay(ctx))
			must(t, who.SetClock(0))
		}
	}
}
