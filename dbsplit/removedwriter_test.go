package dbsplit

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

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

// A promoted server is removed while the monitor elects: it is there with what is known of it, or neither is.
func TestARemovedNodeIsNotElected(t *testing.T) {
	db, err := Open(t.Context(), Nodes{Primary: "postgres://127.0.0.1:1/x", Replicas: []string{"postgres://127.0.0.1:2/x", "postgres://127.0.0.1:3/x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	nodes, m := db.members(), &db.monitor
	for i, n := range nodes {
		db.observe(n, time.Now(), position{recovering: i > 0, at: at(1, 100)}, nil)
	}
	m.mu.Lock()
	m.nodes[1].recovering, m.nodes[1].at = false, at(2, 100)
	removed := make(chan error, 1)
	go func() { removed <- db.RemoveReplica(nodes[1].name) }()
	deadline := time.Now().Add(20 * time.Second)
	for !waitsForLock("(*DB).RemoveReplica") && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	winner, _ := elect(m.nodes, 0, system)
	if (*db.places.Load())[winner] == nil {
		t.Error("a node is elected that has gone")
	}
	m.mu.Unlock()
	if err := <-removed; err != nil {
		t.Error(err)
	}
	db.observe(nodes[2], time.Now(), position{recovering: true, at: at(1, 100)}, nil)
	if db.writer.Load() != nodes[0] {
		t.Errorf("writes go to %s", db.writer.Load().name)
	}
}

// waitsForLock reports whether a goroutine in function waits for a mutex.
func waitsForLock(function string) bool {
	buf := make([]byte, 1<<20)
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "[sync.Mutex.Lock") && strings.Contains(g, function) {
			return true
		}
	}
	return false
}
