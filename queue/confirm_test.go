package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// The master that takes jobs is killed in the middle of them. Jobs that replicas had confirmed all run, also those of its last two
// seconds, which no worker had fetched; of each other one its caller was told that it is not certain.
func TestConfirmedJobsOutliveTheirMasters(t *testing.T) {
	t.Parallel()
	deaths := 1
	if many(t, 0) > 0 {
		deaths = 20
	}
	ctx := t.Context()
	c, err := rediscluster.Start(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rdb := client(t, c.Addrs())
	q := fresh("confirmed")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	var done ledger
	w := newWorker(t, j, &WorkerOptions{Concurrency: 20})
	Handle(w, func(_ context.Context, job note) error { done.add(job.N); return nil })
	start(t, w)
	var mu sync.Mutex
	confirmed, uncertain, next := map[int]time.Time{}, 0, 0
	feeding, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	for range 8 {
		load.Go(func() {
			for sleep(feeding, time.Millisecond) {
				mu.Lock()
				n := next
				next++
				mu.Unlock()
				short, cancel := context.WithTimeout(ctx, 10*time.Second)
				_, err := j.Enqueue(short, note{N: n}, On(q), ID(fmt.Sprint("n", n)), Confirm(1), Retention(time.Hour))
				cancel()
				mu.Lock()
				switch {
				case err == nil:
					confirmed[n] = time.Now()
				case errors.Is(err, ErrUnconfirmed):
					uncertain++
				case errors.Is(err, ErrExists):
					t.Errorf("job %d of this very call is taken for another's", n)
				}
				mu.Unlock()
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(confirmed) }
	for range deaths {
		had := count()
		eventually(t, 60*time.Second, "jobs are confirmed", func() bool { return count() > had+100 })
		eventually(t, 30*time.Second, "the queue is paused", func() bool { _, err := j.Pause(ctx, q, nil); return err == nil })
		had = count()
		eventually(t, 60*time.Second, "jobs are confirmed that nobody fetches", func() bool { return count() > had+100 })
		master, err := c.MasterFor(ctx, asynqKey(q, "pending"))
		if err != nil {
			t.Fatal(err)
		}
		replica, err := c.ReplicaOf(ctx, master)
		if err != nil {
			t.Fatal(err)
		}
		master.Kill()
		killed := time.Now()
		mu.Lock()
		done.mu.Lock()
		last := 0
		for n, at := range confirmed {
			if done.runs[n] == 0 && at.Before(killed) && killed.Sub(at) < 2*time.Second {
				last++
			}
		}
		done.mu.Unlock()
		mu.Unlock()
		if t.Logf("%d jobs that had not begun were confirmed in the master's last two seconds", last); last == 0 {
			t.Error("the death proves nothing of them")
		}
		eventually(t, 30*time.Second, "the replica has taken over", func() bool {
			role, err := replica.Client().Do(ctx, "ROLE").Slice()
			return err == nil && len(role) > 0 && role[0] == "master"
		})
		if err := master.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitHealthy(ctx); err != nil {
			t.Fatal(err)
		}
		// The pause may be lost, which nobody had confirmed.
		eventually(t, 30*time.Second, "the queue goes on", func() bool { _, err := j.Unpause(ctx, q, ""); return err == nil })
	}
	had := count()
	eventually(t, 60*time.Second, "jobs are confirmed again", func() bool { return count() > had+100 })
	stop()
	load.Wait()
	missing := func() (lost []int) {
		done.mu.Lock()
		defer done.mu.Unlock()
		for n := range confirmed {
			if done.runs[n] == 0 {
				lost = append(lost, n)
			}
		}
		return lost
	}
	eventually(t, 60*time.Second, "all confirmed jobs ran", func() bool {
		s, err := j.readDepth(ctx, q)
		return len(missing()) == 0 || err == nil && s.Waiting+s.Active+s.Retrying == 0
	})
	t.Logf("%d deaths: %d jobs confirmed, %d uncertain", deaths, len(confirmed), uncertain)
	if lost := missing(); len(lost) > 0 {
		t.Errorf("%d confirmed jobs never ran: %v", len(lost), lost)
	}
}

// A job of which no replica says in time that it has it is stored once, however soon it is done, and its caller is told at once.
func TestUnconfirmedJobRunsOnce(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs()) // it has no replica, which is as good as one that lags
	q := fresh("unconfirmed")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	var done ledger
	w := newWorker(t, j, nil)
	Handle(w, func(_ context.Context, job note) error { done.add(job.N); return nil })
	start(t, w)
	_, err := j.Enqueue(t.Context(), note{}, Confirm(1))
	if _, ok := asUnconfirmed(err); !ok {
		t.Errorf("Enqueue = %v, want ErrUnconfirmed", err)
	}
	eventually(t, 20*time.Second, "all is done", func() bool { s := status(t, j, q); return done.n.Load() > 0 && s.Waiting+s.Active == 0 })
	done.check(t, 1, true)
}
