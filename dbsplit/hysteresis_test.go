package dbsplit

import (
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
)

// A replica that was staler than the default bound is taken back when it is well below it, not at the bound.
func TestLagHasHysteresis(t *testing.T) {
	db, err := Open(t.Context(), Nodes{Primary: "postgres://127.0.0.1:1/x", Replicas: []string{"postgres://127.0.0.1:2/x"}}, &Options{MaxStaleness: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	nodes, now := db.members(), time.Now()
	db.opened = now.Add(-time.Minute)
	for lsn, ago := range []time.Duration{20 * time.Second, 12 * time.Second, 8 * time.Second, time.Second} {
		db.observe(nodes[0], now.Add(-ago), position{at: at(1, 10*(1+scaleaware.LSN(lsn)))}, nil)
	}
	for i, step := range []struct {
		replayed int // of the samples above, from 0
		want     bool
	}{{2, false}, {1, true}, {2, true}, {3, false}, {2, false}, {0, true}, {3, false}} {
		db.observe(nodes[1], now, position{recovering: true, at: at(1, 10*(1+scaleaware.LSN(step.replayed)))}, nil)
		if v := db.snap.Load().views[1]; v.lagging != step.want || !v.bounded {
			t.Errorf("step %d: lagging %v, want %v", i, v.lagging, step.want)
		}
	}
}
