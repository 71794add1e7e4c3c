package dbsplit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// What a node has counted since its statistics began is not added to what others have counted within a window.
func TestSlowQueriesMergeOneWindow(t *testing.T) {
	c := shared.Get(t)
	nodes := nodesOf(c, c.Database(t))
	db := open(t, dbsplit.Nodes{Primary: nodes.Primary}, nil)
	ctx := within(t, 40*time.Second)
	exec(t, db, "create extension pg_stat_statements")
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	look := func() *dbsplit.SlowQueriesReport {
		r, err := db.SlowQueries(ctx, time.Hour, 500)
		must(t, err)
		return r
	}
	calls := func(r *dbsplit.SlowQueriesReport) (n int64) {
		for _, q := range r.Merged {
			if strings.Contains(q.Query, "as mixed") {
				n += q.Calls
			}
		}
		return n
	}
	get[int](t, ctx, db, "select 1 as mixed")
	if r := look(); calls(r) != 1 || r.Windowed || len(r.NotMerged) != 0 {
		t.Errorf("first %d calls: %+v", calls(r), r.NotMerged)
	}
	replica := open(t, dbsplit.Nodes{Primary: nodes.Replicas[0]}, nil)
	for range 9 {
		get[int](t, ctx, replica.Read(), "select 1 as mixed")
	}
	must(t, db.AddReplica(nodes.Replicas[0]))
	for range 2 {
		get[int](t, ctx, db, "select 1 as mixed")
	}
	r := look()
	if n := calls(r); n != 2 || !r.Windowed || !r.Nodes[0].Windowed || r.Nodes[1].Windowed {
		t.Errorf("merged %d calls, want the 2 within the window", n)
	}
	if len(r.NotMerged) != 1 || r.NotMerged[0].Node != db.Nodes()[1].Name || !strings.Contains(r.NotMerged[0].Reason, "earlier") {
		t.Errorf("left out: %+v", r.NotMerged)
	}
	get[int](t, ctx, replica.Read(), "select 1 as mixed")
	if r := look(); calls(r) != 3 || !r.Windowed || len(r.NotMerged) != 0 {
		t.Errorf("then %d calls of both, want 3: %+v", calls(r), r.NotMerged)
	}
	// A node that cannot be asked is told of as well.
	must(t, db.AddReplica("postgres://postgres@127.0.0.1:1/x"))
	if r := look(); len(r.NotMerged) != 1 || r.NotMerged[0].Node != "127.0.0.1:1" || r.NotMerged[0].Reason == "" {
		t.Errorf("left out: %+v", r.NotMerged)
	}
}

// While Run runs, the first call of an incident has something to compare with, on every node.
func TestSlowQueriesAreSampled(t *testing.T) {
	c := shared.Get(t)
	nodes := nodesOf(c, c.Database(t))
	first := open(t, nodes, nil)
	ctx := within(t, 60*time.Second)
	exec(t, first, "create extension pg_stat_statements")
	for _, s := range c.Servers()[1:] {
		must(t, s.WaitCaughtUp(ctx))
	}
	for range 5 {
		get[int](t, ctx, first, "select 1 as before")
	}
	db := run(t, nodes, nil)
	await(t, db, "a sample of each node", func() bool {
		for _, n := range db.Nodes() {
			if db.Samples(n.Name) == 0 {
				return false
			}
		}
		return true
	})
	get[int](t, ctx, first, "select 1 as before")
	r, err := db.SlowQueries(ctx, time.Hour, 500)
	must(t, err)
	for _, n := range r.Nodes {
		if !n.Windowed || time.Since(n.Since) > time.Minute {
			t.Errorf("%s: %+v", n.Node, n)
		}
	}
	var calls int64
	for _, q := range r.Merged {
		if strings.Contains(q.Query, "as before") {
			calls += q.Calls
		}
	}
	if calls != 1 || !r.Windowed {
		t.Errorf("%d calls since the sample, want 1", calls)
	}
	must(t, db.RemoveReplica(db.Nodes()[2].Name))
	if _, err := db.SlowQueries(ctx, time.Hour, 500); err != nil || db.Samples(r.Nodes[2].Node) != 0 {
		t.Errorf("of a removed node %d samples are kept, %v", db.Samples(r.Nodes[2].Node), err)
	}
}
