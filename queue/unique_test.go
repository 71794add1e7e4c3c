package queue

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
)

// A row whose lock another job holds is done, and its job does not come when that one has ended; those behind it are not held up.
func TestOutboxDropsDuplicates(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q, db := fresh("duplicates"), pool(t)
		j, failures, put := outbox(t, rdb, db, q)
		for range relayBatch + 1 { // one job and a batch of duplicates
			if err := j.EnqueueTx(t.Context(), db, note{N: 7}, Unique(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		put(1)
		start(t, j)
		eventually(t, 20*time.Second, "the outbox is empty", func() bool { return rows(t, db) == 0 })
		if s := status(t, j, q); s.Waiting != 2 {
			t.Errorf("%d jobs wait, want one of the duplicates and the one behind them", s.Waiting)
		}
		if n := testutil.ToFloat64(j.meters.enqueued.WithLabelValues(q, "exists")); n != relayBatch {
			t.Errorf("%v duplicates are counted, want %d", n, relayBatch)
		}
		if n := testutil.ToFloat64(failures.WithLabelValues("queue", "outbox")); n != 0 {
			t.Errorf("%v failures are counted", n)
		}
		w := newWorker(t, j, nil)
		var done ledger
		Handle(w, func(_ context.Context, job note) error { done.add(job.N); return nil })
		start(t, w)
		eventually(t, 10*time.Second, "both ran", func() bool { return done.n.Load() == 2 })
		put(1) // what is stored next is no duplicate's
		eventually(t, 10*time.Second, "the next one ran", func() bool { return done.n.Load() == 3 })
	})
}

// A relay that dies after it was told that a row is a duplicate is told so again, though the job that held the lock is done.
func TestOutboxDuplicateStaysOne(t *testing.T) {
	t.Parallel()
	rdb, db := client(t, single.Get(t).Addrs()), pool(t)
	q := fresh("still")
	j := newJobs(t, rdb, &Options{Outbox: &dying{Pool: db}}, Queue{Name: q})
	if err := newJobs(t, rdb, &Options{Outbox: db}, Queue{Name: q}).EnsureOutbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	enqueue(t, j, q, 1, Unique(time.Hour))
	if err := j.EnqueueTx(t.Context(), db, note{}, Unique(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := j.relay(t.Context(), awayQueues{}); err == nil || rows(t, db) != 1 {
		t.Fatalf("the relay did not die: %v", err)
	}
	w := newWorker(t, j, nil)
	var done ledger
	Handle(w, func(_ context.Context, job note) error { done.add(job.N); return nil })
	start(t, w)
	eventually(t, 10*time.Second, "the holder is done", func() bool {
		s := status(t, j, q)
		return done.n.Load() == 1 && s.Active == 0 && s.Waiting == 0
	})
	if _, err := j.relay(t.Context(), awayQueues{}); err != nil || rows(t, db) != 0 {
		t.Fatalf("the row is left: %v", err)
	}
	if s := status(t, j, q); s.Waiting+s.Active != 0 || done.n.Load() != 1 {
		t.Errorf("the duplicate became a job: %+v", s)
	}
}

// A row whose own answer was lost is no duplicate of itself, and one whose job is gone with its master comes again.
func TestOutboxOwnLockIsNoDuplicate(t *testing.T) {
	t.Parallel()
	rdb, db := client(t, single.Get(t).Addrs()), pool(t)
	q := fresh("own-lock")
	j := newJobs(t, rdb, &Options{Outbox: &dying{Pool: db}}, Queue{Name: q})
	if err := newJobs(t, rdb, &Options{Outbox: db}, Queue{Name: q}).EnsureOutbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := j.EnqueueTx(t.Context(), db, note{}, Unique(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := j.relay(t.Context(), awayQueues{}); err == nil || rows(t, db) != 1 {
		t.Fatalf("the relay did not die: %v", err)
	}
	id := pendingIDs(t, rdb, q)[0]
	rdb.Del(t.Context(), taskPrefix(q)+id, asynqKey(q, "pending")) // but for its lock
	if _, err := j.relay(t.Context(), awayQueues{}); err != nil || rows(t, db) != 0 {
		t.Fatalf("the row is left: %v", err)
	}
	if got := pendingIDs(t, rdb, q); len(got) != 1 || got[0] != id {
		t.Errorf("%q wait, want the row's own job", got)
	}
}

// A lock that asynq's "delete all" has left behind refuses no row, as no job holds it; that of a job which has failed does, as
// the job is there and can be retried, until a tool cuts it off. A plain Enqueue is refused by all of them, as by asynq.
func TestOutboxRowOutlivesALockWithoutAJob(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q, db := fresh("left-lock"), pool(t)
		j := newJobs(t, rdb, &Options{Outbox: db}, Queue{Name: q})
		if err := j.EnsureOutbox(t.Context()); err != nil {
			t.Fatal(err)
		}
		enqueue(t, j, q, 1, Unique(time.Hour))
		if n, err := j.asynq.DeleteAllPendingTasks(q); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if _, err := j.Enqueue(t.Context(), note{}, Unique(time.Hour)); !errors.Is(err, ErrExists) {
			t.Errorf("Enqueue = %v, want asynq's refusal", err)
		}
		relay := func(waiting int) {
			t.Helper()
			for range 2 { // the second one is a duplicate of the first
				if err := j.EnqueueTx(t.Context(), db, note{}, Unique(time.Hour)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := j.relay(t.Context(), awayQueues{}); err != nil || rows(t, db) != 0 {
				t.Fatalf("%d rows are left: %v", rows(t, db), err)
			}
			if s := status(t, j, q); s.Waiting != waiting {
				t.Errorf("%d jobs wait, want %d", s.Waiting, waiting)
			}
		}
		relay(1)
		if n, err := j.asynq.ArchiveAllPendingTasks(q); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		relay(0)
		holder := rdb.ZRange(t.Context(), asynqKey(q, "archived"), 0, 0).Val()[0]
		rdb.Del(t.Context(), taskPrefix(q)+holder)
		rdb.Set(t.Context(), taskPrefix(q)+holder, "no job", 0)
		relay(1)
		if n, err := j.asynq.ArchiveAllPendingTasks(q); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		failedJobs(t, rdb, q, 10_500) // the others are older; asynq's tools cut the oldest off
		for _, id := range rdb.ZRangeArgs(t.Context(), redis.ZRangeArgs{Key: asynqKey(q, "archived"), Start: -2, Stop: -1}).Val() {
			rdb.ZAdd(t.Context(), asynqKey(q, "archived"), redis.Z{Score: 1, Member: id})
		}
		relay(0)
		enqueue(t, j, q, 1, ID("another"))
		if err := j.asynq.ArchiveTask(q, "another"); err != nil {
			t.Fatal(err)
		}
		relay(1)
	})
}

// asynq writes the lock of a job that waits for its group into the job's message alone. It holds.
func TestOutboxRowYieldsToAJobInAGroup(t *testing.T) {
	t.Parallel()
	rdb, db, q := client(t, single.Get(t).Addrs()), pool(t), fresh("grouped")
	j := newJobs(t, rdb, &Options{Outbox: db}, Queue{Name: q})
	if err := j.EnsureOutbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := asynq.NewClientFromRedisClient(rdb).Enqueue(asynq.NewTask("test.note", []byte(`{"n":0}`)), asynq.Queue(q), asynq.TaskID("member"), asynq.Group("g"), asynq.Unique(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	relay := func(waiting int) {
		t.Helper()
		if err := j.EnqueueTx(t.Context(), db, note{}, Unique(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if _, err := j.relay(t.Context(), awayQueues{}); err != nil || rows(t, db) != 0 {
			t.Fatalf("%d rows are left: %v", rows(t, db), err)
		}
		if s := status(t, j, q); s.Waiting != waiting {
			t.Errorf("%d jobs wait, want %d", s.Waiting, waiting)
		}
	}
	relay(0)
	rdb.HSet(t.Context(), taskPrefix(q)+"member", "msg", "of a later job, which has no lock")
	relay(1)
}

// A lock that is left of the job's own ID is taken over for as long as the job says, not for what is left of it.
func TestOwnLockIsRenewed(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("renewed")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 1, ID("x"), Unique(3*time.Second))
	lock := rdb.HGet(t.Context(), taskPrefix(q)+"x", "unique_key").Val()
	rdb.Del(t.Context(), taskPrefix(q)+"x", asynqKey(q, "pending")) // but for its lock
	enqueue(t, j, q, 1, ID("x"), Unique(time.Hour))
	if left := rdb.TTL(t.Context(), lock).Val(); left < 59*time.Minute {
		t.Errorf("the lock is there for another %v, want an hour", left)
	}
}

// A row that was refused is remembered, and a later one with its ID is another row.
func TestOutboxRefusalIsOfOneRow(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q, db := fresh("one-row"), pool(t)
		j := newJobs(t, rdb, &Options{Outbox: db}, Queue{Name: q})
		if err := j.EnsureOutbox(t.Context()); err != nil {
			t.Fatal(err)
		}
		enqueue(t, j, q, 1, Unique(time.Hour))
		id := uuid.NewString()
		for _, waiting := range []int{0, 1} { // beside the holder, and without it
			if err := j.EnqueueTx(t.Context(), db, note{}, ID(id), Unique(time.Hour)); err != nil {
				t.Fatal(err)
			}
			if _, err := j.relay(t.Context(), awayQueues{}); err != nil || rows(t, db) != 0 {
				t.Fatalf("%d rows are left: %v", rows(t, db), err)
			}
			if n := rdb.Exists(t.Context(), taskPrefix(q)+id).Val(); int(n) != waiting {
				t.Errorf("%d jobs of the row, want %d", n, waiting)
			}
			if _, err := j.Purge(t.Context(), q, Waiting); err != nil {
				t.Fatal(err)
			}
		}
	})
}
