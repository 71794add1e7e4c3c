package dbsplit

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// A node is removed while it is measured: no series of it comes back.
func TestNoGaugeOfARemovedNode(t *testing.T) {
	reg := prometheus.NewRegistry()
	db, err := Open(t.Context(), Nodes{Primary: "postgres://127.0.0.1:1/x", Replicas: []string{"postgres://127.0.0.1:2/x"}}, &Options{Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	series := func() (n int) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "node" && l.GetValue() == "127.0.0.1:2" {
						n++
					}
				}
			}
		}
		return n
	}
	n := db.lookUp("127.0.0.1:2")
	measure := func() {
		db.show(db.in.stale, n, 1)
		db.show(db.in.fleet, n, 2)
		db.show(db.in.capacity, n, 3)
	}
	if measure(); series() != 3 {
		t.Errorf("%d series of a node, want 3", series())
	}
	if err := db.RemoveReplica(n.name); err != nil {
		t.Fatal(err)
	}
	if measure(); series() != 0 {
		t.Errorf("%d series of a node that was removed", series())
	}
}
