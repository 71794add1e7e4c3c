package queue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/redisclient"
)

// TestKilledWorkerLosesNothing kills a worker process in the middle of its jobs, which are on their last attempt.
func TestKilledWorkerLosesNothing(t *testing.T) {
	t.Parallel()
	rdb := client(t, cluster.Get(t).Addrs())
	q := Queue{Name: fresh("kill")}
	j := newJobs(t, rdb, nil, q)
	const n = 50
	fill(t, j, q.Name, n)
	var held atomic.Int64
	doomed := startChild(t, childConfig{Addrs: cluster.Get(t).Addrs(), Queues: []Queue{q}, Hold: true}, func(what string, _ int64) {
		if what == "run" {
			held.Add(1)
		}
	})
	eventually(t, 20*time.Second, "the doomed worker holds 20 jobs", func() bool { return held.Load() == 20 })
	w := newWorker(t, j, nil)
	var done ledger
	Handle(w, func(_ context.Context, job note) error { done.add(job.N); return nil })
	start(t, w)
	eventually(t, 20*time.Second, "the others are done", func() bool { return done.n.Load() == n-20 })
	doomed.kill()
	killed := time.Now()
	eventually(t, 60*time.Second, "all are done", func() bool { return done.n.Load() == n })
	t.Logf("back after %v", time.Since(killed))
	if took := time.Since(killed); took > 20*time.Second {
		t.Errorf("the dead worker's jobs were back after %v, want 20s at most", took)
	}
	done.check(t, n, true)
	if s := status(t, j, q.Name); s.Failed != 0 || s.Retrying != 0 {
		t.Errorf("a kill burned attempts: %+v", s)
	}
}

// TestLeasesDeletedUnderWorkers deletes all leases of a queue while jobs run: what living workers run ends, once, and what a worker ran
// that dies then is back within 20 seconds.
func TestLeasesDeletedUnderWorkers(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := Queue{Name: fresh("leases")}
	j := newJobs(t, rdb, nil, q)
	const n = 30
	fill(t, j, q.Name, n)
	var held atomic.Int64
	doomed := startChild(t, childConfig{Addrs: single.Get(t).Addrs(), Queues: []Queue{q}, Hold: true}, func(what string, _ int64) {
		if what == "run" {
			held.Add(1)
		}
	})
	eventually(t, 20*time.Second, "the doomed worker holds 20 jobs", func() bool { return held.Load() == 20 })
	w := newWorker(t, j, &WorkerOptions{Concurrency: 20})
	var begun atomic.Int64
	var done ledger
	release := make(chan struct{})
	Handle(w, func(_ context.Context, job note) error {
		begun.Add(1)
		<-release
		done.add(job.N)
		return nil
	})
	start(t, w)
	eventually(t, 20*time.Second, "the living worker runs the others", func() bool { return begun.Load() == n-20 })
	if gone := rdb.Del(t.Context(), asynqKey(q.Name, "lease")).Val(); gone != 1 {
		t.Fatal("there were no leases")
	}
	deleted := time.Now()
	doomed.kill()
	close(release)
	eventually(t, 60*time.Second, "all are done", func() bool { return done.n.Load() >= n })
	took := time.Since(deleted)
	t.Logf("all were done %v after the leases were deleted", took.Round(time.Millisecond))
	if took > 20*time.Second {
		t.Errorf("jobs without leases were back after %v, want 20s at most", took)
	}
	done.check(t, n, true)
	eventually(t, 10*time.Second, "all ends are recorded", func() bool { s := status(t, j, q.Name); return s.Waiting+s.Active == 0 })
	if s := status(t, j, q.Name); s.Failed != 0 || s.Retrying != 0 {
		t.Errorf("it cost attempts: %+v", s)
	}
}

// TestOrphansComeBack deletes leases, as an evicting Redis would, and makes one that nobody extends.
func TestOrphansComeBack(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("orphan")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 2, MaxRetry(0))
	ctx := t.Context()
	orphan := rdb.RPopLPush(ctx, asynqKey(q, "pending"), asynqKey(q, "active")).Val()
	stalled := rdb.RPopLPush(ctx, asynqKey(q, "pending"), asynqKey(q, "active")).Val()
	rdb.ZAdd(ctx, asynqKey(q, "lease"), redis.Z{Score: float64(time.Now().Add(time.Hour).Unix()), Member: stalled})
	rdb.LPush(ctx, asynqKey(q, "active"), "ghost") // whose hash is gone
	r := newReaper(newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil), 50*time.Millisecond)
	eventually(t, 5*time.Second, "both are back", func() bool {
		if err := r.look(ctx); err != nil {
			t.Fatal(err)
		}
		s := status(t, j, q)
		return s.Active == 0 && s.Waiting == 2 && s.OldestSeconds != nil
	})
	if orphan == stalled || rdb.HGet(ctx, taskPrefix(q)+orphan, "stalls").Val() != "1" {
		t.Error("the stall was not counted")
	}
	// A lease that moves is alive, however old it looks.
	id := rdb.RPopLPush(ctx, asynqKey(q, "pending"), asynqKey(q, "active")).Val()
	for i := range 30 {
		rdb.ZAdd(ctx, asynqKey(q, "lease"), redis.Z{Score: float64(i), Member: id})
		if err := r.look(ctx); err != nil {
			t.Fatal(err)
		}
		sleep(ctx, 5*time.Millisecond)
	}
	if s := status(t, j, q); s.Active != 1 {
		t.Errorf("a living worker's job was taken: %+v", s)
	}
	// One that takes its workers down again and again ends among the failed ones, with the reason, and comes back from there.
	rdb.HSet(ctx, taskPrefix(q)+id, "stalls", maxStalls)
	eventually(t, 5*time.Second, "the poisonous job has failed", func() bool {
		if err := r.look(ctx); err != nil {
			t.Fatal(err)
		}
		s := status(t, j, q)
		return s.Active == 0 && s.Failed == 1
	})
	x, err := j.Explain(ctx, q, id)
	if err != nil || x.State != "failed" || x.Stalls != maxStalls+1 || !strings.Contains(x.Error, "worker died") {
		t.Errorf("Explain = %+v, %v", x, err)
	}
	if n, err := j.RetryFailed(ctx, q, nil); n != 1 || err != nil {
		t.Errorf("RetryFailed = %d, %v", n, err)
	}
	if stalls := rdb.HGet(ctx, taskPrefix(q)+id, "stalls").Val(); stalls != "" {
		t.Errorf("fresh attempts begin with %s stalls", stalls)
	}
}

// Jobs that were fetched beside one that takes its workers down, and have not started, do not fail with it.
func TestPoisonTakesNoneAlong(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("poison")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 10)
		order := pendingIDs(t, rdb, q)
		keys, args := fetching(q)
		for death := range maxStalls + 1 { // a worker fetches what it has slots for and starts the first one, which takes it down at once
			f := newFetcher(j, j.queues[0], 0, newSlots(10, j.queues), 10, time.Millisecond, nil)
			if err := f.fetch(t.Context(), keys, args).Err(); err != nil {
				t.Fatal(err)
			}
			if want := 9; death == 0 && len(f.ready) != want || death > 0 && len(f.ready) != 0 {
				t.Fatalf("%d jobs beside the first after %d deaths", len(f.ready), death)
			}
			r := newReaper(f, time.Second)
			running, err := r.running(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i := range order { // from the last on, so that their order stays
				if score, ok := running[order[i]]; ok {
					if err := r.reap(t.Context(), order[i], score); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if s := status(t, j, q); s.Failed != 1 || s.Waiting != 9 {
			t.Errorf("one job has taken %d workers down: %+v", maxStalls+1, s)
		}
		// Those that have never stalled do come together, up to one that has.
		rdb.HDel(t.Context(), taskPrefix(q)+order[8], "stalls")
		rdb.HDel(t.Context(), taskPrefix(q)+order[7], "stalls")
		f := newFetcher(j, j.queues[0], 0, newSlots(10, j.queues), 10, time.Millisecond, nil)
		f.refill(t.Context(), keys, args)
		if len(f.ready) != 2 || f.ready[0].id != order[8] || f.ready[1].id != order[7] || !slices.Equal(pendingIDs(t, rdb, q), order[:7]) {
			t.Errorf("%d jobs came, and left %v of %v", len(f.ready), pendingIDs(t, rdb, q), order)
		}
	})
}

// What asynq's recoverer finds goes back like the job of a dead worker, with no attempt counted: also when this process has a ticket
// of it, as when heartbeats were lost for so long that asynq has dropped its run without a word.
func TestRecovererCountsNoAttempt(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	for name, held := range map[string]bool{"missed by the reaper": false, "dropped by asynq": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := fresh("recoverer")
			j := newJobs(t, rdb, nil, Queue{Name: q})
			enqueue(t, j, q, 1, MaxRetry(0))
			w := newWorker(t, j, nil)
			w.expose = func(f *fetcher) redis.UniversalClient { // after the reaper's first look and before that of asynq's recoverer
				id := rdb.RPopLPush(t.Context(), asynqKey(q, "pending"), asynqKey(q, "active")).Val()
				rdb.ZAdd(t.Context(), asynqKey(q, "lease"), redis.Z{Score: float64(time.Now().Add(-40 * time.Second).Unix()), Member: id})
				rdb.HSet(t.Context(), taskPrefix(q)+id, "state", "active", "owner", "its run")
				if held {
					f.slots.take(f.index, 1)
					f.handed.Add(1)
					f.mu.Lock()
					f.tickets[id] = &ticket{owner: "its run", running: true, returned: true, since: time.Now().Add(-10 * time.Second)}
					f.mu.Unlock()
				}
				return f
			}
			ran := make(chan string, 1)
			Handle(w, func(ctx context.Context, _ note) error {
				ran <- rdb.HGet(ctx, taskPrefix(q)+AttemptFrom(ctx).ID, "stalls").Val()
				return nil
			})
			start(t, w)
			eventually(t, 20*time.Second, "it has ended", func() bool { s := status(t, j, q); return s.Waiting+s.Active+s.Retrying == 0 })
			if s := status(t, j, q); s.Failed > 0 {
				t.Fatalf("it never ran and has failed: %+v", s)
			}
			if stalls := <-ran; stalls != "1" {
				t.Errorf("%q stalls are counted, want 1", stalls)
			}
			eventually(t, 20*time.Second, "no slot is taken", func() bool { return w.Busy() == 0 })
		})
	}
}

// proxied is a client whose connections go through a proxy that the test can break.
func proxied(t *testing.T, readTimeout time.Duration) (*faultconn.Proxy, redis.UniversalClient) {
	t.Helper()
	proxy, err := faultconn.New(single.Get(t).Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Close() })
	o := redisclient.Options(proxy.Addr())
	o.ReadTimeout = readTimeout
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	rdb := redisclient.New(o)
	t.Cleanup(func() { rdb.Close() })
	return proxy, rdb
}

// TestLostAnswersAddNothingTwice loses the answer to a stored enqueue.
func TestLostAnswersAddNothingTwice(t *testing.T) {
	t.Parallel()
	proxy, rdb := proxied(t, 2*time.Second) // in the tries' time somebody must notice that the job is stored
	q := fresh("lost")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	direct := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	enqueue(t, j, q, 1) // the connection and the script are there
	proxy.Blackhole(faultconn.ToClient)
	healed := make(chan struct{})
	go func() {
		defer close(healed)
		for stored := 0; stored != 2 && sleep(t.Context(), time.Millisecond); { // and its answer is lost
			if s, err := direct.readDepth(t.Context(), q); err == nil {
				stored = s.Waiting
			}
		}
		proxy.Heal()
	}()
	if _, err := j.Enqueue(t.Context(), note{N: 1}, On(q), ID("mine")); err != nil {
		t.Errorf("Enqueue = %v, want the second try to find our own copy", err)
	}
	<-healed
	if _, err := j.Enqueue(t.Context(), note{N: 1}, On(q), ID("mine")); err == nil {
		t.Error("a second job with the same ID was accepted")
	}
	if s := status(t, direct, q); s.Waiting != 2 {
		t.Errorf("%d jobs, want 2", s.Waiting)
	}

	proxy, rdb = proxied(t, 100*time.Millisecond)
	j = newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 1)
	proxy.Blackhole(faultconn.ToClient)
	_, err := j.Enqueue(t.Context(), note{N: 2}, On(q), ID("doubtful"))
	proxy.Heal()
	if doubt, ok := asUnconfirmed(err); !ok || doubt.ID != "doubtful" || doubt.Queue != q {
		t.Fatalf("Enqueue = %v, want ErrUnconfirmed", err)
	}
}

// deaf loses the answers of chosen scripts, and says so when it has.
type deaf struct {
	redis.UniversalClient
	lose func(keys []string, args []any) bool
	then func()
}

func (d deaf) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := d.UniversalClient.EvalSha(ctx, sha, keys, args...)
	if cmd.Err() != nil || !d.lose(keys, args) {
		return cmd
	}
	if d.then != nil {
		d.then()
	}
	return failed(ctx, errors.New("i/o timeout"))
}

// Process is how scripts come that are sent once.
func (d deaf) Process(ctx context.Context, cmd redis.Cmder) error {
	return byDigest(ctx, d.UniversalClient, cmd, d.EvalSha)
}

// A job that is retained is found when the answer to its enqueue was lost, even if it is done by then.
func TestLostAnswerOfARetainedJob(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("retained")
	plain := newJobs(t, rdb, nil, Queue{Name: q})
	w := newWorker(t, plain, nil)
	var done ledger
	Handle(w, func(_ context.Context, job note) error { done.add(job.N); return nil })
	start(t, w)
	enqueue(t, plain, q, 1) // Redis knows the scripts
	var lost atomic.Int64
	j := newJobs(t, deaf{rdb, func(keys []string, _ []any) bool { return len(keys) == 4 && lost.Add(1) == 1 }, func() {
		eventually(t, 20*time.Second, "it is done", func() bool { s := status(t, plain, q); return done.n.Load() == 2 && s.Waiting+s.Active == 0 })
	}}, nil, Queue{Name: q})
	if _, err := j.Enqueue(t.Context(), note{N: 1}, Retention(time.Minute)); err != nil || lost.Load() != 2 {
		t.Errorf("Enqueue = %v after %d tries, want none after 2", err, lost.Load())
	}
	eventually(t, 20*time.Second, "all is done", func() bool { s := status(t, plain, q); return s.Waiting+s.Active == 0 })
	done.check(t, 2, true)
}

// TestBlipsDoNotRunJobsTwice resets connections while jobs are fetched and finished.
func TestBlipsDoNotRunJobsTwice(t *testing.T) {
	t.Parallel()
	proxy, rdb := proxied(t, 300*time.Millisecond)
	q := fresh("blip")
	direct := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	const n = 2000
	fill(t, direct, q, n)
	w := newWorker(t, newJobs(t, rdb, nil, Queue{Name: q}), &WorkerOptions{Concurrency: 20})
	var done ledger
	Handle(w, func(_ context.Context, job note) error {
		done.add(job.N)
		if job.N%100 == 50 {
			proxy.Reset()
		}
		return nil
	})
	start(t, w)
	// Sooner than the reaper acts: nothing was lost on the way that it had to bring back.
	eventually(t, 10*time.Second, "all are done", func() bool {
		s := status(t, direct, q)
		return s.Waiting == 0 && s.Active == 0 && done.n.Load() >= n
	})
	done.check(t, n, true)
	if s := status(t, direct, q); s.Failed != 0 || s.Retrying != 0 {
		t.Errorf("blips burned attempts: %+v", s)
	}
}

// A dead worker's job that goes to the failed ones, or back, is counted once, and told of, also when the answer was lost.
func TestLostReapIsToldOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stalls   int
		recovers bool
	}{"failed": {maxStalls, false}, "back": {0, false}, "failed by asynq's recoverer": {maxStalls, true}, "back by asynq's recoverer": {0, true}} {
		t.Run(name, func(t *testing.T) {
			onBothCut(t, reapScript.Hash(), func(t *testing.T, plain redis.UniversalClient, rdb *cut) {
				q, ctx := fresh("lost-reap"), t.Context()
				j := newJobs(t, rdb.UniversalClient, nil, Queue{Name: q})
				enqueue(t, j, q, 1)
				id := plain.RPopLPush(ctx, asynqKey(q, "pending"), asynqKey(q, "active")).Val()
				plain.HSet(ctx, taskPrefix(q)+id, "stalls", c.stalls)
				plain.ZAdd(ctx, asynqKey(q, "lease"), redis.Z{Score: 5, Member: id})
				f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil)
				told := 0
				f.onDead = func(context.Context, DeadJob) { told++ }
				r := newReaper(f, time.Nanosecond)
				rdb.armed.Store(true)
				if c.recovers { // all of its answers are lost
					rdb.then = func() { rdb.sent.Store(0) }
					if err := f.recover(ctx, id); err == nil {
						t.Error("asynq's recoverer has heard nothing of a lost answer")
					}
					rdb.armed.Store(false)
				}
				for range 4 {
					_ = r.look(ctx) // one of them fails
				}
				want := 0
				if c.stalls == maxStalls {
					want = 1
				}
				stalled, dead := testutil.ToFloat64(j.meters.stalled.WithLabelValues(q)), testutil.ToFloat64(j.meters.dead.WithLabelValues(q))
				if s := status(t, j, q); told != want || dead != float64(want) || stalled != 1 || s.Failed != want || s.Waiting != 1-want || len(r.seen) != 0 {
					t.Errorf("OnDead was told %d times, %v dead and %v stalled are counted, %d are still seen: %+v", told, dead, stalled, len(r.seen), s)
				}
			})
		})
	}
}

// So is one of which a reaper had read that it runs when asynq's recoverer gave it back, unheard.
func TestLostReapBehindAReadIsToldOnce(t *testing.T) {
	t.Parallel()
	onBothCut(t, reapScript.Hash(), func(t *testing.T, plain redis.UniversalClient, rdb *cut) {
		q, ctx := fresh("behind"), t.Context()
		j := newJobs(t, rdb.UniversalClient, nil, Queue{Name: q})
		enqueue(t, j, q, 1)
		id := plain.RPopLPush(ctx, asynqKey(q, "pending"), asynqKey(q, "active")).Val()
		plain.HSet(ctx, taskPrefix(q)+id, "stalls", maxStalls)
		plain.ZAdd(ctx, asynqKey(q, "lease"), redis.Z{Score: 5, Member: id})
		f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil)
		told := 0
		f.onDead = func(context.Context, DeadJob) { told++ }
		f.tickets[id] = &ticket{since: time.Now(), running: true, until: time.Now().Add(time.Hour)}
		r := newReaper(f, time.Hour)
		if err := r.look(ctx); err != nil {
			t.Fatal(err)
		}
		rdb.AddHook(behind{word: ownKey(q, "reaper"), do: sync.OnceFunc(func() {
			rdb.then = func() { rdb.sent.Store(0) } // all answers are lost
			rdb.armed.Store(true)
			if err := f.recover(ctx, id); err == nil {
				t.Error("asynq's recoverer has heard nothing of a lost answer")
			}
			rdb.armed.Store(false)
		})})
		for range 4 {
			_ = r.look(ctx)
		}
		stalled, dead := testutil.ToFloat64(j.meters.stalled.WithLabelValues(q)), testutil.ToFloat64(j.meters.dead.WithLabelValues(q))
		if s := status(t, j, q); told != 1 || dead != 1 || stalled != 1 || s.Failed != 1 {
			t.Errorf("OnDead was told %d times, %v dead and %v stalled are counted: %+v", told, dead, stalled, s)
		}
	})
}

// behind does something when a pipeline with a word in it has its answers.
type behind struct {
	redis.Hook
	word string
	do   func()
}

func (b behind) DialHook(next redis.DialHook) redis.DialHook { return next }

func (b behind) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (b behind) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if slices.ContainsFunc(cmds, func(c redis.Cmder) bool { return strings.Contains(fmt.Sprint(c.Args()...), b.word) }) {
			b.do()
		}
		return err
	}
}
