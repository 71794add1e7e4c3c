package dbsplit_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// A read with a bound waits for one of its replica's connections until the replica is staler than that.
func TestMaxStalenessHoldsAfterAWaitForAConnection(t *testing.T) {
	db, c, _ := settled(t, &dbsplit.Options{ReplicaConns: 1})
	notes(t, db)
	must(t, c.Replica(0).WaitCaughtUp(t.Context()))
	ctx := within(t, 30*time.Second)
	node := c.Replica(0).Addr()
	holder, err := db.Read(dbsplit.OnNode(node)).Begin(ctx)
	must(t, err)
	var wg sync.WaitGroup
	found, outcome := -1, error(nil)
	const bound = 2 * time.Second
	wg.Go(func() {
		outcome = db.Read(dbsplit.OnNode(node), dbsplit.MaxStaleness(bound)).QueryRow(ctx, "select count(*)::int from notes").Scan(&found)
	})
	await(t, db, "the read to wait", func() bool {
		for _, n := range db.Nodes() {
			if n.Name == node {
				return n.Inflight == 2
			}
		}
		return false
	})
	must(t, c.Replica(0).PauseReplay(ctx))
	defer c.Replica(0).ResumeReplay(t.Context()) //nolint:errcheck // a test's
	exec(t, db, "insert into notes values (1)")
	await(t, db, "the replica to be stale", func() bool {
		for _, n := range db.Nodes() {
			if n.Name == node {
				return n.Staleness > bound
			}
		}
		return false
	})
	must(t, holder.Rollback(ctx))
	wg.Wait()
	if !errors.Is(outcome, dbsplit.ErrNoNode) {
		t.Errorf("beyond its bound the read found %d rows, %v", found, outcome)
	}
}
