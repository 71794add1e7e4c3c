package dbsplit

import (
	"testing"
	"time"
)

// A replica is named twice. It is promoted while it answers by its second name only, and then by its first one, too.
func TestTheWriterHasATwin(t *testing.T) {
	db, err := Open(t.Context(), Nodes{
		Primary: "postgres://127.0.0.1:1/x", Replicas: []string{"postgres://127.0.0.1:2/x", "postgres://127.0.0.1:3/x"},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	nodes := db.members()
	for i, n := range nodes {
		n.identity.Store(&identity{started: 1 + int64(min(i, 1)), port: 5432})
	}
	say := func(i int, recovering bool, timeline uint32) {
		db.observe(nodes[i], time.Now(), position{recovering: recovering, at: at(timeline, 100)}, nil)
	}
	say(0, false, 1)
	say(1, true, 1)
	db.observe(nodes[1], time.Now(), position{}, errNewcomer)
	say(2, false, 2)
	if db.writer.Load() != nodes[2] {
		t.Fatal("writes have not moved")
	}
	say(1, false, 2)
	if v := db.snap.Load().views; v[1].role != roleTwin || v[2].role != rolePrimary || v[1].contested || v[2].contested {
		t.Errorf("%s, contested %v, and the writer is %s, contested %v", v[1].role, v[1].contested, v[2].role, v[2].contested)
	}
}
