package queue

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/metrics"
)

// shown lists the names of the series of tasks that a registry exports.
func shown(t *testing.T, reg *prometheus.Registry) (pending float64, names []string) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		names = append(names, f.GetName())
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == metrics.QueueTasks.Name && l.GetName() == "state" && l.GetValue() == "pending" {
					pending = m.GetGauge().GetValue()
				}
			}
		}
	}
	return pending, names
}

func sampling(t *testing.T, reg *prometheus.Registry) bool {
	_, names := shown(t, reg)
	return slices.Contains(names, metrics.QueueTasks.Name) && slices.Contains(names, metrics.SamplerSuccess.Name)
}

func TestOneProcessSamples(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("sampled")
		process := func() (*prometheus.Registry, func()) {
			reg := prometheus.NewRegistry()
			j := newJobs(t, rdb, &Options{SampleInterval: 60 * time.Millisecond, Registerer: reg}, Queue{Name: q})
			return reg, start(t, j)
		}
		enqueue(t, newJobs(t, rdb, nil, Queue{Name: q}), q, 3)
		first, stop := process()
		eventually(t, 5*time.Second, "the first process samples", func() bool { n, _ := shown(t, first); return n == 3 })
		second, _ := process()
		wider := prometheus.NewRegistry()
		start(t, newJobs(t, rdb, &Options{SampleInterval: 60 * time.Millisecond, Registerer: wider}, Queue{Name: q}, Queue{Name: fresh("other")}))
		eventually(t, 5*time.Second, "who declares more queues samples for itself", func() bool { return sampling(t, wider) })
		if _, names := shown(t, second); slices.Contains(names, metrics.QueueTasks.Name) {
			t.Errorf("the second process shows %v", names)
		}
		stop()
		if sampling(t, first) {
			t.Error("the first process shows an old depth after its end")
		}
		eventually(t, 10*time.Second, "the second process takes over", func() bool { n, _ := shown(t, second); return n == 3 })
	})
}

// The limit that the fleet obeys is shown, whoever has set it last, and none is no number.
func TestRateLimitIsShown(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		reg, q := prometheus.NewRegistry(), fresh("limited")
		j := newJobs(t, rdb, &Options{SampleInterval: 60 * time.Millisecond, Registerer: reg}, Queue{Name: q, Rate: Rate{Max: 100, Per: 2 * time.Second}})
		start(t, j)
		limit := func() float64 {
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if f.GetName() == metrics.QueueRateLimit.Name {
					return f.GetMetric()[0].GetGauge().GetValue()
				}
			}
			return 0
		}
		eventually(t, 5*time.Second, "the declared limit is shown", func() bool { return limit() == 50 })
		if err := j.SetLimits(t.Context(), q, Limits{Rate: Rate{Max: 7, Per: time.Second}}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "the new limit is shown", func() bool { return limit() == 7 })
		if err := j.SetLimits(t.Context(), q, Limits{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "no limit is shown", func() bool { return limit() == 0 })
	})
}

func TestDepthIsAbsentWithoutRedis(t *testing.T) {
	own := rediscluster.NewShared(&rediscluster.Options{Nodes: 1}) // it is stopped
	c := own.Get(t)
	defer c.Close()
	reg := prometheus.NewRegistry()
	j := newJobs(t, client(t, c.Addrs()), &Options{SampleInterval: 60 * time.Millisecond, Registerer: reg}, Queue{Name: "q"})
	start(t, j)
	eventually(t, 5*time.Second, "the depth is sampled", func() bool { return sampling(t, reg) })
	c.Nodes()[0].Kill()
	eventually(t, 20*time.Second, "the depth is absent", func() bool {
		_, names := shown(t, reg)
		return !slices.Contains(names, metrics.QueueTasks.Name)
	})
	if _, names := shown(t, reg); !slices.Contains(names, metrics.SamplerSuccess.Name) {
		t.Error("nothing says when the last sample succeeded")
	}
	if err := c.Nodes()[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the depth is back", func() bool { return sampling(t, reg) })
}

// Jobs that asynq's run-all has made waiting have an age, here and in asynq's tools, one that goes on from each to the next.
func TestJobsOfRunAllHaveAnAge(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("runall")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 3, MaxRetry(0))
		w := newWorker(t, j, nil)
		Handle(w, func(context.Context, note) error { return errors.New("no") })
		stop := start(t, w)
		eventually(t, 10*time.Second, "they have failed", func() bool { return status(t, j, q).Failed == 3 })
		stop()
		enqueue(t, j, q, 1, In(time.Hour))
		if n, err := j.asynq.RunAllArchivedTasks(q); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		if s := status(t, j, q); s.OldestSeconds != nil {
			t.Errorf("the age is known: %v", *s.OldestSeconds)
		}
		since := func() string {
			t.Helper()
			if err := j.sample(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			id, err := rdb.LIndex(t.Context(), asynqKey(q, "pending"), -1).Result()
			if err != nil {
				t.Fatal(err)
			}
			return rdb.HGet(t.Context(), taskPrefix(q)+id, "pending_since").Val()
		}
		first := since()
		ns, err := strconv.ParseInt(first, 10, 64)
		if age := time.Since(time.Unix(0, ns)); err != nil || age < -time.Second || age > time.Minute {
			t.Errorf("the head waits since %q", first)
		}
		if s := status(t, j, q); s.OldestSeconds == nil {
			t.Error("the age is not known")
		}
		eventually(t, 10*time.Second, "asynq sees an age, too", func() bool {
			info, err := j.asynq.GetQueueInfo(q)
			return err == nil && info.Latency > 0
		})
		pop := func() { rdb.RPop(t.Context(), asynqKey(q, "pending")) }
		for range 2 { // the next ones wait as long
			pop()
			if again := since(); again != first {
				t.Errorf("the next one waits since %q, the first did since %q", again, first)
			}
		}
		pop()
		if err := j.sample(t.Context(), q); err != nil { // it is empty
			t.Fatal(err)
		}
		if _, err := j.asynq.RunAllScheduledTasks(q); err != nil {
			t.Fatal(err)
		}
		if again := since(); again == first || again == "" {
			t.Errorf("a later run-all's job waits since %q, as the first one's", again)
		}
		enqueue(t, j, q, 1)
		pop()
		if own := since(); own == "" || rdb.Exists(t.Context(), ownKey(q, "ageless")).Val() != 0 {
			t.Errorf("a job with a time of its own waits since %q, and the other's is remembered", own)
		}
	})
}

// What can be read on a full server is shown, though the first failed job cannot be marked, nor a job without an age be given one.
func TestFullRedisIsSampled(t *testing.T) {
	t.Parallel()
	rdb := client(t, alone(t).Addrs())
	for name, spoil := range map[string]func(q string){
		"a failed job": func(q string) { failedJobs(t, rdb, q, 1) },
		"a job without an age": func(q string) {
			rdb.HDel(t.Context(), taskPrefix(q)+pendingIDs(t, rdb, q)[0], "pending_since")
		},
	} {
		q := fresh("full")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 1)
		s := &sampler{jobs: j, missed: map[string]int{}}
		if err := s.sample(t.Context()); err != nil {
			t.Fatal(err)
		}
		spoil(q)
		room := full(t, rdb)
		for range missedSamples + 1 {
			if err := s.sample(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := testutil.CollectAndCount(j.meters.tasks); n != 7 {
			t.Errorf("%s: %d series of depths, want 7", name, n)
		}
		room()
	}
}

// What is sampled of a queue is what it has.
func TestSeriesOfAQueue(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q, ctx := fresh("series"), t.Context()
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 7)
		if n, err := j.Park(ctx, q); n != 7 || err != nil {
			t.Fatal(n, err)
		}
		enqueue(t, j, q, 3, In(time.Hour))
		enqueue(t, j, q, 2+1)
		rdb.RPopLPush(ctx, asynqKey(q, "pending"), asynqKey(q, "active"))
		for state, n := range map[string]int{"retry": 4, "archived": 5, "completed": 6} {
			for i := range n {
				rdb.ZAdd(ctx, asynqKey(q, state), redis.Z{Score: 1, Member: i})
			}
		}
		head := rdb.LIndex(ctx, asynqKey(q, "pending"), -1).Val()
		rdb.HSet(ctx, taskPrefix(q)+head, "pending_since", time.Now().Add(-time.Hour).UnixNano())
		rdb.HSet(ctx, scaleKey(q), "workers", 8)
		if err := j.sample(ctx, q); err != nil {
			t.Fatal(err)
		}
		for state, want := range map[string]float64{"pending": 2, "active": 1, "scheduled": 3, "retry": 4, "archived": 5, "completed": 6, "parked": 7} {
			if got := testutil.ToFloat64(j.meters.tasks.WithLabelValues(q, state)); got != want {
				t.Errorf("%s: %v, want %v", state, got, want)
			}
		}
		if got := testutil.ToFloat64(j.meters.oldest.WithLabelValues(q)); got < 3600 || got > 3700 {
			t.Errorf("the oldest waits for %v s", got)
		}
		if got := testutil.ToFloat64(j.meters.desired.WithLabelValues(q)); got != 8 {
			t.Errorf("%v workers are wanted, want 8", got)
		}
	})
}

// A queue that a silent master has keeps those of the others not from being sampled, wherever it is declared among them.
func TestSilentQueueHidesNoGaugesOfOthers(t *testing.T) {
	t.Parallel()
	for name, order := range map[string]func(silent, good Queue) []Queue{
		"before": func(silent, good Queue) []Queue { return []Queue{silent, good} },
		"after":  func(silent, good Queue) []Queue { return []Queue{good, silent} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, word, good := client(t, single.Get(t).Addrs()), fresh("hang"), fresh("good")
			rdb.AddHook(hangs{word: word})
			j := newJobs(t, rdb, nil, order(Queue{Name: word}, Queue{Name: good})...)
			enqueue(t, j, good, 3)
			s := &sampler{jobs: j, missed: map[string]int{}}
			for range missedSamples {
				ctx, cancel := context.WithTimeout(t.Context(), j.opts.SampleInterval) // as metrics.Sampler gives it
				if err := s.sample(ctx); err != nil {
					t.Error(err)
				}
				cancel()
			}
			if n := testutil.CollectAndCount(j.meters.tasks); n != 7 {
				t.Errorf("%d series of depths, want the 7 of the queue that answers", n)
			}
			if n := testutil.ToFloat64(j.meters.tasks.WithLabelValues(good, "pending")); n != 3 {
				t.Errorf("%v jobs wait, want 3", n)
			}
		})
	}
}

// A sample that its process's end breaks off says so, whatever it has read.
func TestSampleThatIsBrokenOffIsNone(t *testing.T) {
	t.Parallel()
	rdb, word, good := client(t, single.Get(t).Addrs()), fresh("hang"), fresh("good")
	brokenOff := make(chan struct{})
	rdb.AddHook(hangs{word: word, released: brokenOff})
	j := newJobs(t, rdb, nil, Queue{Name: word}, Queue{Name: good})
	enqueue(t, j, good, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for end := time.Now().Add(10 * time.Second); testutil.CollectAndCount(j.meters.tasks) == 0 && time.Now().Before(end); {
			sleep(t.Context(), time.Millisecond)
		}
		cancel()
		close(brokenOff)
	}()
	if err := (&sampler{jobs: j, missed: map[string]int{}}).sample(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was broken off", err)
	}
}
