package dbsplit

import (
	"testing"
	"time"
)

// A read loses its connection while a probe that was answered before is taken in: only a later one clears the node.
func TestSuspicionOutlivesAnOlderProbe(t *testing.T) {
	db, err := Open(t.Context(), Nodes{Primary: "postgres://127.0.0.1:1/x", Replicas: []string{"postgres://127.0.0.1:2/x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	now := time.Now()
	db.opened = now.Add(-time.Minute)
	n := db.lookUp("127.0.0.1:2")
	answer := func(sent time.Time) { db.observe(n, sent, position{recovering: true, at: at(1, 100)}, nil) }
	suspect := func() bool { return n.load.suspect.Load() != 0 }
	answer(now)
	db.fail(n)
	if answer(now); !suspect() {
		t.Error("a probe from before the failure has cleared the node")
	}
	if db.observe(n, time.Now(), position{}, errNewcomer); !suspect() {
		t.Error("a probe that failed has cleared the node")
	}
	if answer(now.Add(time.Hour)); suspect() {
		t.Error("a later probe has not cleared the node")
	}
	db.Bar(1, ErrPooler)
	if answer(now.Add(2 * time.Hour)); !suspect() {
		t.Error("a node that is barred is not avoided")
	}
	db.Bar(1, nil)
	if answer(now.Add(3 * time.Hour)); suspect() {
		t.Error("a node that is let in again is avoided")
	}
}
