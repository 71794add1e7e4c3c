package dbsplit

import (
	"context"
	"testing"
	"time"
)

// Writes have moved, and the snapshot still shows the promoted server as a replica: what it had replayed is no position of
// the primary.
func TestPositionOfAServerJustPromoted(t *testing.T) {
	db, err := Open(t.Context(), Nodes{Primary: "postgres://127.0.0.1:1/x", Replicas: []string{"postgres://127.0.0.1:2/x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	nodes := db.members()
	db.observe(nodes[0], time.Now(), position{at: at(1, 100)}, nil)
	mark := time.Now()
	db.observe(nodes[1], time.Now(), position{recovering: true, at: at(1, 90)}, nil)
	if err := db.moveWriter(nodes[0], nodes[1]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if got, err := db.sample(ctx, nodes[1], mark); err == nil {
		t.Errorf("it stands at %v", got)
	}
	db.publish()
	db.observe(nodes[1], time.Now(), position{at: at(2, 95)}, nil)
	if got, err := db.sample(t.Context(), nodes[1], mark); err != nil || got != at(2, 95) {
		t.Errorf("after its probe it stands at %v, %v", got, err)
	}
}
