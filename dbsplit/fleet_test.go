package dbsplit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgbouncer"
)

// Each instance counts the others by their monitors, and says when all together may open too many connections.
func TestFleetFitsTheServer(t *testing.T) {
	reg := prometheus.NewRegistry()
	opts := dbsplit.Options{Name: "shop", MaxConns: 30, PrimaryReadConns: 9, ReplicaConns: 5}
	first, c, database := settled(t, &opts)
	await(t, first, "the first to count itself", func() bool { return first.Nodes()[0].FleetConnections == 30+9+1 })
	await(t, first, "the same for a replica", func() bool { return first.Nodes()[1].FleetConnections == 5+1 })
	if n := first.Nodes()[1]; n.Advice != "" {
		t.Errorf("a replica: %+v", n)
	}
	opts.MaxConns, opts.Registerer = 100, reg
	second := run(t, nodesOf(c, database), &opts)
	await(t, second, "the second to count both", func() bool { return second.Nodes()[0].FleetConnections == 2*(100+9+1) })
	n := second.Nodes()[0]
	if n.MaxConnections < 50 || n.MaxConnections >= n.FleetConnections || !strings.Contains(n.Advice, "all 2 instances together may open 220 connections") {
		t.Errorf("the primary: %+v", n)
	}
	if got := counter(t, reg, "db_fleet_max_connections", "node", n.Name); got != 220 {
		t.Errorf("db_fleet_max_connections is %v", got)
	}
	if got := counter(t, reg, "db_server_max_connections", "node", n.Name); got != float64(n.MaxConnections) {
		t.Errorf("db_server_max_connections is %v", got)
	}
}

// What a pooler lets in bounds neither the server nor the pools before it.
func TestFleetBehindPoolerIsNotCompared(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	p := pooler(t, c.Primary(), pgbouncer.Options{Mode: pgbouncer.Transaction})
	reg := prometheus.NewRegistry()
	opts := dbsplit.Options{MaxConns: 500, PrimaryReadConns: 500, ReplicaConns: 5, Registerer: reg}
	nodes := dbsplit.Nodes{Primary: p.URL(database) + "&node_pooler=transaction", Replicas: []string{c.Replica(0).URL(database)}}
	db := run(t, nodes, &opts)
	await(t, db, "the replica to be counted", func() bool { return db.Nodes()[1].FleetConnections == 5+1 })
	opts.Registerer = nil
	second := run(t, nodes, &opts)
	await(t, second, "both to be counted", func() bool { return second.Nodes()[1].FleetConnections == 2*(5+1) })
	if n := db.Nodes()[0]; n.Advice != "" || n.FleetConnections != 0 || n.MaxConnections != 0 {
		t.Errorf("the primary: %+v", n)
	}
	if n := testutil.CollectAndCount(reg, "db_fleet_max_connections"); n != 1 {
		t.Errorf("%d nodes have a size of the fleet, want the replica alone", n)
	}
}

// Every wait for a connection is in the histogram of its pool.
func TestWaitsForConnectionsAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	db, _, _ := settled(t, &dbsplit.Options{Registerer: reg})
	waits := func(role string) float64 { return counter(t, reg, "db_pool_acquire_duration_seconds", "role", role) }
	replica, primary := waits("replica"), waits("primary")
	ctx := within(t, 20*time.Second)
	for range 7 {
		get[int](t, ctx, db.Read(dbsplit.FallBack(dbsplit.FallbackNone)), "select 1")
	}
	exec(t, db, "select 1")
	// The monitor takes one of each pool's now and then.
	if n := waits("replica") - replica; n < 7 || n > 10 {
		t.Errorf("%v waits for replicas are counted, want 7", n)
	}
	if n := waits("primary") - primary; n < 1 || n > 2 {
		t.Errorf("%v waits for the primary are counted, want 1", n)
	}
}
