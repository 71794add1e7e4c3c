package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
)

// starts collects the limiter's stamps by queue, of jobs that have run: what nothing ran with is given back, and granted again.
type starts struct {
	mu     sync.Mutex
	stamps map[string][]int64
}

func (s *starts) add(queue, _ string, stamp int64) { s.told(queue, stamp) }

func (s *starts) told(queue string, stamp int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stamps == nil {
		s.stamps = make(map[string][]int64)
	}
	s.stamps[queue] = append(s.stamps[queue], stamp)
}

// worst returns the most starts in any half-open window of a second, and the mean rate of all whole seconds.
func (s *starts) worst(queue string) (most int, mean float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.stamps[queue])
	slices.Sort(all)
	for first, i := 0, 0; i < len(all); i++ {
		for all[i]-all[first] >= 1_000_000 {
			first++
		}
		most = max(most, i-first+1)
	}
	if len(all) > 0 {
		whole := (all[len(all)-1] - all[0]) / 1_000_000
		n, _ := slices.BinarySearch(all, all[0]+whole*1_000_000)
		mean = float64(n) / float64(max(whole, 1))
	}
	return most, mean
}

// TestLimitsHoldTogether runs the three limits of the runbook on one backlog each, with two workers here and one in each
// other process.
func TestLimitsHoldTogether(t *testing.T) { // alone: only a busy limiter proves something
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		addrs := single.Get(t).Addrs()
		if _, clustered := rdb.(*redis.ClusterClient); clustered {
			addrs = cluster.Get(t).Addrs()
		}
		processes := []int{2}
		if many(t, 0) > 0 {
			processes = []int{1, 2, 4, 8}
		}
		for _, n := range processes {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				// The limit holds in every try. With a backlog it is also reached, unless the machine stood still at a window's end, for
				// which no window makes up.
				const tries = 5
				least := make([]float64, 3)
				for range tries {
					for i, share := range limitsHold(t, rdb, addrs, n) {
						least[i] = max(least[i], share)
					}
					if slices.Min(least) >= 0.99 {
						return
					}
				}
				for i, share := range least { // the highest may be more than a busy machine can do
					if floor := []float64{0.9, 0.99, 0.99}[i]; share < floor {
						t.Errorf("queue %d starts %.1f %% of its limit with a backlog at best, want %.0f %%", i, 100*share, 100*floor)
					}
				}
			})
		}
	})
}

// limitsHold returns what share of their limits three queues reach.
func limitsHold(t *testing.T, rdb redis.UniversalClient, addrs []string, processes int) (shares []float64) {
	queues := []Queue{
		{Name: fresh("critical"), Rate: Rate{Max: 1000, Per: time.Second}, Weight: 6},
		{Name: fresh("normal"), Rate: Rate{Max: 100, Per: time.Second}, Weight: 3},
		{Name: fresh("low"), Rate: Rate{Max: 10, Per: time.Second}},
	}
	j := newJobs(t, rdb, nil, queues...)
	const run = 3 * time.Second
	for _, q := range queues {
		fill(t, j, q.Name, 6*q.Rate.Max)
	}
	var seen starts
	others := make([]*child, processes-1)
	for i := range others {
		others[i] = startChild(t, childConfig{Addrs: addrs, Queues: queues}, func(what string, n int64) {
			if what != "run" && what != "end" {
				seen.told(what, n)
			}
		})
	}
	var stops []func()
	for range 2 {
		w := newWorker(t, j, &WorkerOptions{Concurrency: 20})
		w.onUse = seen.add
		Handle(w, func(ctx context.Context, job note) error { return nil })
		stops = append(stops, start(t, w))
	}
	sleep(t.Context(), run)
	for _, stop := range stops {
		stop()
	}
	for _, other := range others {
		other.stop()
	}
	for _, q := range queues {
		most, mean := seen.worst(q.Name)
		t.Logf("%s: worst second %d, mean %.1f/s", q.Name, most, mean)
		if most > q.Rate.Max {
			t.Errorf("%s: %d starts in a second, the limit is %d", q.Name, most, q.Rate.Max)
		}
		shares = append(shares, mean/float64(q.Rate.Max))
		if s := status(t, j, q.Name); s.Retrying != 0 || s.Failed != 0 || s.Active != 0 {
			t.Errorf("%s: waiting for the limit cost something: %+v", q.Name, s)
		}
	}
	return shares
}

// fill enqueues n jobs at once, many producers at a time.
func fill(t *testing.T, j *Jobs, queue string, n int, opts ...Option) {
	t.Helper()
	var wg sync.WaitGroup
	for p := range 8 {
		wg.Go(func() {
			for i := p; i < n; i += 8 {
				if _, err := j.Enqueue(context.Background(), note{N: i}, append([]Option{On(queue), MaxRetry(0)}, opts...)...); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestCriticalIsNotHeldUp lets a low queue fill every slot that it can get, with jobs that never end.
func TestCriticalIsNotHeldUp(t *testing.T) {
	t.Parallel()
	critical, low := fresh("critical"), fresh("low")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: critical, Weight: 6}, Queue{Name: low})
	enqueue(t, j, low, 40)
	w := newWorker(t, j, &WorkerOptions{Concurrency: 10, DrainTimeout: time.Millisecond})
	var done ledger
	low1 := make(chan struct{})
	Handle(w, func(ctx context.Context, job note) error {
		if job.Text == "" {
			<-low1
			return nil
		}
		done.add(job.N)
		return nil
	})
	start(t, w)
	eventually(t, 5*time.Second, "low jobs hold all but the slots that are kept", func() bool { return w.Busy() == 6 })
	for i := range 200 {
		if _, err := j.Enqueue(t.Context(), note{N: i, Text: "critical"}, On(critical)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 5*time.Second, "all critical jobs are done", func() bool { return done.n.Load() == 200 })
	done.check(t, 200, true)
	close(low1)
}

// TestLimitSurvivesClockSteps puts starts into the future, as a clock that was set back leaves them.
func TestLimitSurvivesClockSteps(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	for name, c := range map[string]struct{ ahead, least time.Duration }{
		"an hour": {time.Hour, 0},
		"a bit":   {700 * time.Millisecond, 1700 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := fresh("clock")
			j := newJobs(t, rdb, nil, Queue{Name: q, Rate: Rate{Max: 1, Per: time.Second}})
			now, err := rdb.Time(t.Context()).Result()
			if err != nil {
				t.Fatal(err)
			}
			rdb.LPush(t.Context(), ownKey(q, "starts"), now.Add(c.ahead).UnixMicro())
			enqueue(t, j, q, 1)
			w := newWorker(t, j, nil)
			ran := make(chan time.Time, 1)
			Handle(w, func(context.Context, note) error { ran <- time.Now(); return nil })
			start(t, w)
			select {
			case at := <-ran:
				if took := at.Sub(now); took < c.least {
					t.Errorf("the job started after %v, want %v", took, c.least)
				}
			case <-time.After(30 * time.Second):
				t.Error("the job did not start")
			}
		})
	}
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		target   int
		weights  []int
		inflight []int
		q        int
		want     bool
	}{
		{"idle", 10, []int{6, 1}, []int{0, 0}, 1, true},
		{"low leaves what is kept for critical", 10, []int{6, 1}, []int{0, 6}, 1, false},
		{"critical uses what is kept", 10, []int{6, 1}, []int{0, 6}, 0, true},
		{"critical leaves one for low", 10, []int{6, 1}, []int{9, 0}, 0, false},
		{"low gets its one", 10, []int{6, 1}, []int{9, 0}, 1, true},
		{"full", 10, []int{6, 1}, []int{9, 1}, 0, false},
		{"fewer slots than queues: first come", 1, []int{6, 1}, []int{0, 0}, 1, true},
		{"fewer slots than queues: full", 1, []int{6, 1}, []int{0, 1}, 0, false},
		{"none", 0, []int{6, 1}, []int{0, 0}, 0, false},
		{"shrunk below what runs", 2, []int{1, 1}, []int{3, 0}, 1, false},
	} {
		if got := admit(c.target, reserves(c.target, c.weights), c.inflight, c.q); got != c.want {
			t.Errorf("%s: admit = %v with %v kept", c.name, got, reserves(c.target, c.weights))
		}
	}
	for _, weights := range [][]int{{1}, {100, 1, 1, 1, 1}, {1, 1, 1}, {6, 3, 1, 1}} {
		for target := range 60 {
			kept, sum := reserves(target, weights), 0
			for _, k := range kept {
				sum += k
				if target >= len(weights) && k < 1 {
					t.Errorf("reserves(%d, %v) = %v: a queue may starve", target, weights, kept)
				}
			}
			if sum > target {
				t.Errorf("reserves(%d, %v) = %v: more than there are", target, weights, kept)
			}
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	weights, inflight := []int{6, 3, 1, 1}, []int{10, 4, 2, 0}
	kept := reserves(50, weights)
	b.ReportAllocs()
	for b.Loop() {
		admit(50, kept, inflight, 2)
	}
}

// A look that brings nothing, or less than there are slots for, takes as many starts as jobs.
func TestStartsAreTakenByJobsAlone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, smooth := range map[string]bool{"window": false, "smooth": true} {
			q := Queue{Name: fresh("tokens"), Rate: Rate{Max: 60, Per: time.Hour}, Smooth: smooth} // of which four may come at once
			if !smooth {
				q.Rate.Max = 4
			}
			j := newJobs(t, rdb, nil, q)
			f := newFetcher(j, j.queues[0], 0, newSlots(9, j.queues), 9, time.Millisecond, nil)
			if err := j.seed(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			keys, args := fetching(q.Name)
			pop := func(n, want int) {
				t.Helper()
				f.pops++
				reply, err := f.pop(t.Context(), keys, args, n)
				if f.known = f.pops; len(reply.jobs) != want || err != nil {
					t.Errorf("%s: a pop of %d got %d jobs, %v, want %d", name, n, len(reply.jobs), err, want)
				}
			}
			for range 5 {
				pop(9, 0)
				pop(1, 0)
			}
			enqueue(t, j, q.Name, 1)
			pop(9, 1)
			pop(9, 0)
			enqueue(t, j, q.Name, 9)
			pop(9, 3)
			pop(9, 0)
			if n := rdb.LLen(t.Context(), ownKey(q.Name, "starts")).Val(); n != 4 {
				t.Errorf("%s: %d starts are counted, want 4", name, n)
			}
		}
	})
}

// A failover that forgets some starts lets as many more jobs start, once.
func TestForgottenStartsAreMadeOnce(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	const most = 3
	for lost := range int64(most + 1) {
		q := Queue{Name: fresh("forgotten"), Rate: Rate{Max: most, Per: time.Hour}}
		j := newJobs(t, rdb, nil, q)
		enqueue(t, j, q.Name, 4*most)
		f := newFetcher(j, j.queues[0], 0, newSlots(9, j.queues), 9, time.Millisecond, nil)
		keys, args := fetching(q.Name)
		pop := func() (got int64) {
			for range 3 {
				f.pops++
				reply, err := f.pop(t.Context(), keys, args, 9)
				if f.known = f.pops; err != nil {
					t.Fatal(err)
				}
				got += int64(len(reply.jobs))
			}
			return got
		}
		if got := pop(); got != most {
			t.Errorf("%d jobs have started, want %d", got, most)
		}
		if err := rdb.LTrim(t.Context(), ownKey(q.Name, "starts"), lost, -1).Err(); err != nil {
			t.Fatal(err)
		}
		if got := pop(); got != lost {
			t.Errorf("%d jobs have started after %d starts were forgotten", got, lost)
		}
	}
}

// Every attempt counts against a rate, and nothing else does.
func TestRetriesCountAgainstTheRate(t *testing.T) {
	t.Parallel()
	q := fresh("attempts")
	rdb := client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q, Rate: Rate{Max: 2, Per: time.Hour}})
	enqueue(t, j, q, 1, MaxRetry(9))
	w := newWorker(t, j, &WorkerOptions{RetryDelay: func(int, error) time.Duration { return 0 }}) // so it is put off, which is no start
	var ran atomic.Int64
	Handle(w, func(context.Context, note) error { ran.Add(1); return errors.New("no") })
	start(t, w)
	eventually(t, 20*time.Second, "it waits after two starts", func() bool {
		return rdb.LLen(t.Context(), ownKey(q, "starts")).Val() == 2 && status(t, j, q).Waiting == 1
	})
	refused := func() float64 { return testutil.ToFloat64(j.meters.limited.WithLabelValues(q)) }
	before := refused()
	eventually(t, 20*time.Second, "it is refused", func() bool { return refused() > before+1 })
	if n := ran.Load(); n != 2 {
		t.Errorf("it ran %d times, want 2", n)
	}
}

// Jobs of a dead worker give the fleet's bound back when they are taken from it.
func TestConcurrencyOutlivesADeadWorker(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := Queue{Name: fresh("bound"), Concurrency: 2}
		j := newJobs(t, rdb, nil, q)
		if err := j.seed(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		enqueue(t, j, q.Name, 4)
		keys, args := fetching(q.Name)
		worker := func() *fetcher { return newFetcher(j, j.queues[0], 0, newSlots(9, j.queues), 9, time.Millisecond, nil) }
		dead, living := worker(), worker()
		if dead.refill(t.Context(), keys, args); len(dead.ready) != 2 {
			t.Fatalf("%d jobs came, want 2", len(dead.ready))
		}
		if living.refill(t.Context(), keys, args); len(living.ready) != 0 {
			t.Fatalf("%d jobs came past the bound", len(living.ready))
		}
		for _, job := range dead.ready {
			score := formatScore(redis.Z{Score: rdb.ZScore(t.Context(), asynqKey(q.Name, "lease"), job.id).Val()})
			if err := living.reap(t.Context(), job.id, score); err != nil {
				t.Fatal(err)
			}
		}
		living.refill(t.Context(), keys, args)
		first := len(living.ready) // one that has stalled comes alone
		living.refill(t.Context(), keys, args)
		if s := status(t, j, q.Name); first != 1 || s.Active != 2 || s.Waiting != 2 {
			t.Errorf("then %d jobs came, %d run and %d wait", first, s.Active, s.Waiting)
		}
	})
}
