package queue

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/metrics"
)

// TestOutboxOutlivesTheMaster lets a master die with jobs that no replica has: they must come again from the outbox.
func TestOutboxOutlivesTheMaster(t *testing.T) {
	t.Parallel()
	rd, err := rediscluster.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	rdb := client(t, rd.Addrs())
	db := pool(t)
	q := fresh("replicated")
	reg := prometheus.NewRegistry()
	failures, err := metrics.NewCounter(reg, metrics.BackgroundErrors)
	if err != nil {
		t.Fatal(err)
	}
	j := newJobs(t, rdb, &Options{Outbox: db, OutboxInterval: 20 * time.Millisecond, Registerer: reg}, Queue{Name: q})
	if err := j.EnsureOutbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	put := func(n int) {
		for i := range n {
			if err := j.EnqueueTx(t.Context(), db, note{N: i}); err != nil {
				t.Fatal(err)
			}
		}
	}
	start(t, j)
	put(1)
	eventually(t, 20*time.Second, "a healthy cluster confirms", func() bool { return rows(t, db) == 0 })

	master, err := rd.MasterFor(t.Context(), asynqKey(q, "pending"))
	if err != nil {
		t.Fatal(err)
	}
	replica, err := rd.ReplicaOf(t.Context(), master)
	if err != nil {
		t.Fatal(err)
	}
	replica.Freeze()
	put(5)
	eventually(t, 20*time.Second, "the jobs are on the master alone", func() bool { return status(t, j, q).Waiting == 6 })
	eventually(t, 20*time.Second, "the relay says that no replica confirms", func() bool {
		return testutil.ToFloat64(failures.WithLabelValues("queue", "outbox")) > 0
	})
	if n := rows(t, db); n != 5 {
		t.Errorf("%d rows are left while no replica has their 5 jobs", n)
	}
	master.Kill()
	replica.Thaw()
	eventually(t, 40*time.Second, "the outbox is empty again", func() bool { return rows(t, db) == 0 })
	if got := status(t, j, q).Waiting; got != 6 {
		t.Errorf("%d jobs wait on the promoted replica, want 6", got)
	}
}
