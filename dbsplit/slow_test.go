package dbsplit_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
)

// A replica that answers, but later than the monitor waits, leaves while another one is there, and stays when it is the last.
func TestTheLastSlowReplicaStays(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	all := nodesOf(c, database)
	const patience, delay = 1500 * time.Millisecond, 1600 * time.Millisecond // what is heard within twice the patience keeps it
	for _, replicas := range []int{1, 2} {
		proxy, slow := proxied(t, c.Replica(0), database)
		nodes := dbsplit.Nodes{Primary: all.Primary, Replicas: append([]string{slow}, all.Replicas[1:replicas]...)}
		db := run(t, nodes, &dbsplit.Options{ConnectTimeout: 20 * time.Second, ProbeTimeout: patience, MinConns: 4})
		await(t, db, "fresh replicas", func() bool { return fresh(db) == replicas })
		ctx, stop := context.WithCancel(within(t, 60*time.Second))
		var readers sync.WaitGroup
		for range 8 { // something is always on its way
			readers.Go(func() {
				for ctx.Err() == nil {
					if err := db.Read(dbsplit.OnNode(proxy.Addr())).QueryRow(ctx, "select 1").Scan(nil); err != nil {
						runtime.Gosched() // it has left
					}
				}
			})
		}
		proxy.Delay(faultconn.ToServer, delay)
		await(t, db, "probes without an answer", func() bool {
			return !db.Nodes()[1].Up || replicas == 1 && time.Since(db.Answered(1)) > 3*patience
		})
		if up := db.Nodes()[1].Up; up != (replicas == 1) {
			t.Errorf("of %d replicas the slow one is up: %v", replicas, up)
		}
		stop()
		proxy.Heal()
		readers.Wait()
	}
}
