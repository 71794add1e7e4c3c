package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/faultconn"
)

// TestFinishSurvivesBlips breaks the connections at the very end of a job: on the way there Redis does not hear of
// the end, on the way back the worker does not hear that Redis did. Neither may run the job again.
func TestFinishSurvivesBlips(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		dir  faultconn.Direction
		keep time.Duration // then the end does not travel with a fetch
	}{
		"call lost": {faultconn.ToServer, 0}, "answer lost": {faultconn.ToClient, 0},
		"call lost, kept": {faultconn.ToServer, time.Minute}, "answer lost, kept": {faultconn.ToClient, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy, rdb := proxied(t, 200*time.Millisecond)
			q := fresh("finish")
			direct := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
			enqueue(t, direct, q, 2, MaxRetry(0), Retention(c.keep)) // the first makes Redis know the scripts
			var log lines
			w := newWorker(t, newJobs(t, rdb, &Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, Queue{Name: q}), &WorkerOptions{Concurrency: 1})
			var f *fetcher
			w.expose = func(its *fetcher) redis.UniversalClient { f = its; return its }
			var done ledger
			returned := make(chan struct{})
			Handle(w, func(_ context.Context, job note) error {
				done.add(job.N)
				eventually(t, 10*time.Second, "it waits for the slot", func() bool { return awaitsSlot(f) })
				if job.N == 1 {
					proxy.Blackhole(c.dir)
					close(returned)
				}
				return nil
			})
			stop := start(t, w)
			<-returned
			sleep(t.Context(), 300*time.Millisecond) // longer than the read timeout: the fault has done its work
			proxy.Heal()
			// Sooner than the reaper acts, so it is not the reaper who has cleaned up.
			eventually(t, 8*time.Second, "the job is gone", func() bool { s := status(t, direct, q); return s.Active == 0 && s.Waiting == 0 })
			stop()
			done.check(t, 2, true)
			if text := log.String(); strings.Contains(text, "NOT FOUND") {
				t.Errorf("a recorded end looked like a failure: %s", text)
			}
		})
	}
}

type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// failing are the keys and arguments of asynq's script for a failed attempt.
func failing(q, id, reason string) (keys []string, args []any) {
	keys = []string{taskPrefix(q) + id}
	for _, name := range []string{"active", "lease", "retry", "processed:2026-01-01", "failed:2026-01-01", "processed", "failed"} {
		keys = append(keys, asynqKey(q, name))
	}
	m := message{kind: note{}.Kind(), id: id, queue: q, err: reason}
	return keys, []any{id, m.encode(), time.Now().Unix(), int64(1 << 40), true, int64(1 << 60)}
}

// fetching are the keys and arguments of asynq's script that fetches.
func fetching(q string) (keys []string, args []any) {
	for _, name := range []string{"pending", "paused", "active", "lease"} {
		keys = append(keys, asynqKey(q, name))
	}
	return keys, []any{time.Now().Add(30 * time.Second).Unix(), taskPrefix(q)}
}

// A shutdown makes the coming end of a job a return while its time runs out: they meet without a race.
func TestReturnsMeetEnds(t *testing.T) {
	t.Parallel()
	q := fresh("meet")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	const n = 50
	enqueue(t, j, q, n)
	f := newFetcher(j, j.queues[0], 0, newSlots(n, j.queues), n, time.Millisecond, nil)
	keys, args := fetching(q)
	for range n {
		if err := f.fetch(t.Context(), keys, args).Err(); err != nil {
			t.Fatal(err)
		}
	}
	var group sync.WaitGroup
	for _, id := range slices.Collect(maps.Keys(f.tickets)) {
		run, _ := f.begin(id, time.Now().Add(time.Minute))
		group.Go(func() {
			keys, args := failing(q, id, "no time left")
			if err := f.EvalSha(t.Context(), "", keys, args...).Err(); err != nil {
				t.Error(err)
			}
		})
		group.Go(func() { f.returnJob(run, 0) })
	}
	group.Wait()
	if s := status(t, j, q); s.Waiting+s.Retrying != n || s.Active != 0 {
		t.Errorf("of %d jobs none is running and all come back: %+v", n, s)
	}
}

// OnDead and queue_dead_total are told of jobs that have failed for good, also when the answer to that is lost, and of no others: not
// of one that was taken from its worker, nor of one that lives again when the worker hears what has become of it.
func TestOnlyTheDeadAreTold(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	if err := endScript.Load(t.Context(), rdb).Err(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		taken, lost, revived bool
		told                 int64
	}{"dead": {told: 1}, "taken": {taken: true}, "answer lost": {lost: true, told: 1}, "answer lost and revived": {lost: true, revived: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := fresh("told")
			plain := newJobs(t, rdb, nil, Queue{Name: q})
			enqueue(t, plain, q, 1, MaxRetry(0))
			var once atomic.Bool
			j := newJobs(t, deaf{rdb, func(keys []string, _ []any) bool { return c.lost && len(keys) == 10 && !once.Swap(true) }, func() {
				if !c.revived {
					return
				}
				if n, err := plain.RetryFailed(t.Context(), q, nil); n != 1 || err != nil {
					t.Errorf("RetryFailed = %d, %v", n, err)
				}
			}}, nil, Queue{Name: q})
			f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil)
			var told atomic.Int64
			f.onDead = func(context.Context, DeadJob) { told.Add(1) }
			keys, args := fetching(q)
			if err := f.fetch(t.Context(), keys, args).Err(); err != nil {
				t.Fatal(err)
			}
			id := rdb.LIndex(t.Context(), asynqKey(q, "active"), 0).Val()
			if c.taken {
				if err := newReaper(f, time.Second).reap(t.Context(), id, fmt.Sprint(args[0])); err != nil {
					t.Fatal(err)
				}
			}
			f.begin(id, time.Now().Add(time.Minute))
			keys, args = failing(q, id, "no use")
			keys[3] = asynqKey(q, "archived")
			if err := f.EvalSha(t.Context(), "", append(keys, taskPrefix(q)), append(args, 0)...).Err(); err != nil {
				t.Fatal(err)
			}
			if n := told.Load(); n != c.told || n != int64(testutil.ToFloat64(j.meters.dead.WithLabelValues(q))) {
				t.Errorf("OnDead was told of %d jobs, want %d: %+v", n, c.told, status(t, plain, q))
			}
		})
	}
}

// The end of a failed job whose answer was lost tells OnDead once, is counted once, and is no late end.
func TestOnDeadHearsOfALostEnd(t *testing.T) {
	t.Parallel()
	onBothCut(t, "$7\r\narchive\r\n", func(t *testing.T, plain redis.UniversalClient, rdb *cut) {
		q := fresh("lost-end")
		direct := newJobs(t, plain, nil, Queue{Name: q})
		j := newJobs(t, rdb.UniversalClient, nil, Queue{Name: q})
		var told atomic.Int64
		w := newWorker(t, j, &WorkerOptions{OnDead: func(context.Context, DeadJob) { told.Add(1) }})
		Handle(w, func(context.Context, note) error { return errors.New("no") })
		rdb.armed.Store(true)
		stop := start(t, w)
		enqueue(t, direct, q, 1, MaxRetry(0))
		eventually(t, 20*time.Second, "it has failed", func() bool { return status(t, direct, q).Failed == 1 })
		stop()
		dead, late := testutil.ToFloat64(j.meters.dead.WithLabelValues(q)), testutil.ToFloat64(j.meters.background.WithLabelValues("queue", "late end"))
		if told.Load() != 1 || dead != 1 || late != 0 || rdb.sent.Load() < 2 {
			t.Errorf("OnDead was told %d times, %v are counted, %v late ends, sent %d times", told.Load(), dead, late, rdb.sent.Load())
		}
	})
}
