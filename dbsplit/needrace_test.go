package dbsplit

import (
	"context"
	"testing"

	"github.com/scaleaware/scaleaware"
)

// Two reads of one unit of work: one has looked at the nodes, the other has read from a node that was added after that.
func TestSeenOnANodeThatTheSnapshotLacks(t *testing.T) {
	db, err := Open(t.Context(), Nodes{Primary: "postgres://127.0.0.1:1/x"}, &Options{MonotonicReads: true, ProbeTimeout: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.publish()
	before := db.snap.Load()
	if err := db.AddReplica("postgres://127.0.0.1:2/x"); err != nil {
		t.Fatal(err)
	}
	db.publish()
	_, w := scaleaware.WithWatermark(context.Background())
	w.RaiseFrom(db.lookUp("127.0.0.1:2").sight.Load())
	need, err := db.needed(t.Context(), before, w)
	if err != nil || need.seen != nil {
		t.Errorf("it needs %+v, %v", need, err)
	}
}
