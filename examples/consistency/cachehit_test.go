package consistency

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/redisclient"
)

// TestMonotonicReadsAfterACacheHit: what a caller was given by the cache, loaded by somebody else, it has seen.
func TestMonotonicReadsAfterACacheHit(t *testing.T) {
	c := postgres.Get(t)
	database := c.Database(t)
	counters(t, c, database, 1)
	db, err := dbsplit.Open(t.Context(), nodesOf(c, database), &dbsplit.Options{MonotonicReads: true})
	must(t, err)
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	var running sync.WaitGroup
	running.Go(func() { _ = db.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait(); db.Close() })
	fresh := func() (n int) {
		for _, node := range db.Nodes() {
			if node.Role == "replica" && node.Up && node.Staleness >= 0 {
				n++
			}
		}
		return n
	}
	eventually(t, "two replicas", func() bool { return fresh() == 2 })
	rdb := redisclient.New(redisclient.Options(redis.Get(t).Addrs()...))
	defer rdb.Close()
	store, err := cache.New(rdb, &cache.Options{Prefix: "hit:"})
	must(t, err)
	rows := cache.Of[int64](store, "counter")
	look := func(ctx context.Context) (value int64) {
		value, err := rows.Load(ctx, "1", func(ctx context.Context, _ string) (v int64, err error) {
			err = db.Read().QueryRow(ctx, `select value from counters where id = 1`).Scan(&v)
			return v, err
		})
		must(t, err)
		return value
	}

	must(t, c.Replica(1).PauseReplay(ctx))
	t.Cleanup(func() {
		if err := c.Replica(1).ResumeReplay(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	writer, _ := scaleaware.WithWatermark(ctx)
	_, err = db.Exec(writer, `update counters set value = 1 where id = 1`)
	must(t, err)
	must(t, rows.Delete(writer, "1"))
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	if got := look(writer); got != 1 {
		t.Fatalf("the writer read %d", got)
	}
	for range 30 { // half of them are sent to the replica that has nothing
		reader, _ := scaleaware.WithWatermark(ctx)
		first := look(reader)
		_, err := store.Invalidate(ctx, "*")
		must(t, err)
		if second := look(reader); second < first {
			t.Fatalf("a caller read %d from the cache, and %d later", first, second)
		}
		_, err = store.Invalidate(ctx, "*")
		must(t, err)
		look(writer)
	}
}
