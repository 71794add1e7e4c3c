package dbsplit

import "testing"

// A server is removed between its election and the move of the writes.
func TestWritesDoNotMoveToARemovedNode(t *testing.T) {
	db, err := Open(t.Context(), Nodes{Primary: "postgres://127.0.0.1:1/x", Replicas: []string{"postgres://127.0.0.1:2/x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	from, to := db.writer.Load(), db.lookUp("127.0.0.1:2")
	if err := db.RemoveReplica(to.name); err != nil {
		t.Fatal(err)
	}
	if err := db.moveWriter(from, to); err != nil || db.writer.Load() != from {
		t.Errorf("writes go to %s, %v", db.writer.Load().name, err)
	}
}
