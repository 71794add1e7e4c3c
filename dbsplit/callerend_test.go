package dbsplit_test

import (
	"context"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// A caller whose time is over closes his connection, which says nothing about the node: the next read goes there at once.
func TestCallersEndIsNoFault(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	db := run(t, dbsplit.Nodes{Primary: c.Primary().URL(database), Replicas: []string{c.Replica(0).URL(database)}}, nil)
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	ctx := within(t, 60*time.Second)
	for range 10 {
		brief, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		_, err := db.Read().Exec(brief, "select pg_sleep(10)")
		cancel()
		if err == nil {
			t.Fatal("a statement outlived its caller")
		}
		if role := served(t, ctx, db.Read()); role != "replica" {
			t.Fatalf("the next read went to the %s: %+v", role, db.Nodes())
		}
	}
}
