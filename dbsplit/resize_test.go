package dbsplit_test

import (
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// What was sized by its role stays so: a resize changes all pools in one proportion, reckoned from the sizes at Open.
func TestResizeKeepsProportions(t *testing.T) {
	c := shared.Get(t)
	nodes := nodesOf(c, c.Database(t))
	db := open(t, nodes, &dbsplit.Options{MaxConns: 30, PrimaryReadConns: 9, ReplicaConns: 5})
	s := listener(t, db)
	ctx := within(t, 20*time.Second)
	sizes := func(body string) map[string]int32 {
		r := decode[dbsplit.PoolReport](t, call(t, s, "POST", path+"pool", body), 200)
		by := make(map[string]int32)
		for _, p := range r.Pools {
			if before, ok := by[p.Role]; ok && before != p.Max {
				t.Errorf("replicas of %d and %d connections", before, p.Max)
			}
			by[p.Role] = p.Max
		}
		return by
	}
	for _, want := range []struct {
		body                   string
		writes, reads, replica int32
	}{
		{`{"max": 60}`, 60, 18, 10},
		{`{"max": 50}`, 50, 15, 8},
		{`{"max": 1}`, 1, 1, 1},
		{`{"max": 10000}`, 10000, 3000, 1667},
		{`{"max": 30}`, 30, 9, 5},
	} {
		if by := sizes(want.body); by["primary"] != want.writes || by["primary-reads"] != want.reads || by["replica"] != want.replica {
			t.Errorf("%s: %v, want %d, %d, %d", want.body, by, want.writes, want.reads, want.replica)
		}
	}
	must(t, db.Resize(ctx, 60))
	name := db.Nodes()[2].Name
	must(t, db.RemoveReplica(name))
	must(t, db.AddReplica(nodes.Replicas[1]))
	if by := sizes(`{"max": 60}`); by["replica"] != 10 || by["primary-reads"] != 18 {
		t.Errorf("with a newcomer: %v", by)
	}

	plain := open(t, nodes, &dbsplit.Options{MaxConns: 4})
	s = listener(t, plain)
	if by := sizes(`{"max": 51}`); by["primary"] != 51 || by["primary-reads"] != 26 || by["replica"] != 51 {
		t.Errorf("where nothing was said: %v", by)
	}
}
