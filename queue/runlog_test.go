package queue

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// The percentiles of known distributions are at most 2.5 % off the exact ones, over all durations that a job may have.
func TestRunPercentiles(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 5))
	for name, draw := range map[string]func() float64{ // seconds
		"uniform":     func() float64 { return 0.002 + random.Float64() },
		"exponential": func() float64 { return 0.001 + 0.3*random.ExpFloat64() },
		"log-normal":  func() float64 { return 0.001 + math.Exp(random.NormFloat64()*1.5-2) },
		"heavy tail":  func() float64 { return 0.01 / math.Pow(1-random.Float64(), 1/1.2) },
		"two humps": func() float64 {
			if random.IntN(10) == 0 {
				return 30 + random.Float64()
			}
			return 0.01 + random.Float64()/100
		},
		"hours": func() float64 { return 3600 * (1 + 20*random.Float64()) },
		"equal": func() float64 { return 0.05 },
	} {
		counts := runCounts{buckets: make(map[int]int64)}
		all := make([]float64, 20_000)
		for i := range all {
			all[i] = min(draw(), 24*3600)
			counts.buckets[durationBucket(time.Duration(all[i]*float64(time.Second)))]++
		}
		slices.Sort(all)
		for _, q := range []float64{0.01, 0.5, 0.95, 0.99, 1} {
			exact := all[max(int(math.Ceil(q*float64(len(all)))), 1)-1]
			if got, ok := counts.quantile(q); !ok || math.Abs(got/exact-1) > 0.025 {
				t.Errorf("%s: quantile %v is %v, exactly %v", name, q, got, exact)
			}
		}
	}
	if _, ok := (&runCounts{}).quantile(0.95); ok {
		t.Error("there is a quantile of nothing")
	}
}

// What was counted while Redis did not answer is added when it does, and once, whatever became of the answers.
func TestRunCountersOutliveABlip(t *testing.T) {
	t.Parallel()
	q := fresh("runlog")
	rdb := client(t, single.Get(t).Addrs())
	l := newRunLog()
	flush := func(rdb redis.UniversalClient) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return l.flush(ctx, rdb)
	}
	is := func(done, failed int64) {
		t.Helper()
		c, err := readRuns(t.Context(), rdb, q)
		if err != nil || c.done != done || c.failed != failed || c.buckets[durationBucket(time.Second)] != done+failed {
			t.Errorf("%d are done, %d failed, %v, %v; want %d and %d", c.done, c.failed, c.buckets, err, done, failed)
		}
	}
	l.add(q, "done", time.Second)
	l.add(q, "failed", time.Second)
	if err := flush(client(t, []string{"127.0.0.1:1"})); err == nil {
		t.Fatal("Redis answered")
	}
	l.add(q, "done", time.Second)
	if err := errors.Join(flush(rdb), flush(rdb)); err != nil {
		t.Fatal(err)
	}
	is(2, 1)
	if err := runsScript.Load(t.Context(), rdb).Err(); err != nil {
		t.Fatal(err)
	}
	l.add(q, "done", time.Second)
	if err := flush(unheard{rdb}); err == nil {
		t.Fatal("the answer was not lost")
	}
	is(3, 1)
	l.add(q, "failed", time.Second)
	if err := errors.Join(flush(rdb), flush(rdb), flush(rdb)); err != nil {
		t.Fatal(err)
	}
	is(3, 2)
}

// A worker that ends soon after a blip leaves nothing uncounted: neither what Redis did not answer nor what ended since.
func TestRunCountersAreWholeAtShutdown(t *testing.T) {
	t.Parallel()
	q := fresh("lastflush")
	rdb := client(t, single.Get(t).Addrs())
	l := newRunLog()
	l.add(q, "done", time.Second)
	if err := l.flush(t.Context(), client(t, []string{"127.0.0.1:1"})); err == nil {
		t.Fatal("Redis answered")
	}
	l.add(q, "failed", time.Second)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	l.flushLoop(ended, newJobs(t, rdb, nil, Queue{Name: q}))
	if c, err := readRuns(t.Context(), rdb, q); err != nil || c.done != 1 || c.failed != 1 {
		t.Errorf("%d are done, %d failed, %v; want 1 and 1", c.done, c.failed, err)
	}
}

// unheard is a client that loses the answers of scripts.
type unheard struct{ redis.UniversalClient }

func (u unheard) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := u.UniversalClient.EvalSha(ctx, sha, keys, args...)
	if cmd.Err() == nil {
		cmd.SetErr(io.EOF)
	}
	return cmd
}

// Nothing counts that ended more than five minutes ago.
func TestRunWindow(t *testing.T) {
	t.Parallel()
	q := fresh("window")
	rdb := client(t, single.Get(t).Addrs())
	count := func(age time.Duration) {
		t.Helper()
		if err := rdb.HIncrBy(t.Context(), runKey(q, time.Now().Add(-age)), "failed", 1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for age := runWindow; age < runWindow+15*time.Second; age += time.Second {
		count(age)
	}
	if c, err := readRuns(t.Context(), rdb, q); err != nil || c.failed != 0 {
		t.Errorf("%d count that ended 5:00 to 5:15 ago, %v", c.failed, err)
	}
	for _, age := range []time.Duration{0, time.Minute, runWindow - 2*runBucket} {
		count(age)
	}
	if c, err := readRuns(t.Context(), rdb, q); err != nil || c.failed != 3 {
		t.Errorf("%d count, %v, want 3", c.failed, err)
	}
}

// The failed rate is exact: of all workers, of the last five minutes and no older, without what was put back.
func TestFailedRateOfAWindow(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("rate")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		rate := func(want float64, what string) {
			t.Helper()
			s := status(t, j, q)
			if s.FailedRate == nil || math.Abs(*s.FailedRate-want) > 1e-12 {
				t.Errorf("%s: failed rate %v, want %v", what, s.FailedRate, want)
			}
		}
		if s := status(t, j, q); s.FailedRate != nil {
			t.Errorf("of nothing %v failed", *s.FailedRate)
		}
		for _, outcomes := range []map[string]int{{"done": 4, "failed": 3, "requeued": 50}, {"done": 1}} { // two workers
			l := newRunLog()
			for outcome, n := range outcomes {
				for range n {
					l.add(q, outcome, time.Millisecond)
				}
			}
			if err := l.flush(t.Context(), rdb); err != nil {
				t.Fatal(err)
			}
		}
		rate(3.0/8, "3 of 8")
		add := func(age time.Duration, failed, done int64) {
			t.Helper()
			key := runKey(q, time.Now().Add(-age))
			if _, err := rdb.TxPipelined(context.Background(), func(pipe redis.Pipeliner) error {
				pipe.HIncrBy(t.Context(), key, "failed", failed)
				pipe.HIncrBy(t.Context(), key, "done", done)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		add(runWindow-2*runBucket, 1, 7)
		rate(4.0/16, "with 1 of 8 nearly five minutes ago")
		add(runWindow+2*runBucket, 100, 0)
		rate(4.0/16, "with 100 more than five minutes ago")
	})
}

// Each percentile is in its field.
func TestStatusHasThePercentiles(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, single.Get(t).Addrs()), fresh("percentiles")
	j, l := newJobs(t, rdb, nil, Queue{Name: q}), newRunLog()
	for took, n := range map[time.Duration]int{time.Second: 90, 10 * time.Second: 8, 100 * time.Second: 2} {
		for range n {
			l.add(q, "done", took)
		}
	}
	if err := l.flush(t.Context(), rdb); err != nil {
		t.Fatal(err)
	}
	s := status(t, j, q)
	for want, got := range map[float64]*float64{1: s.RunP50Seconds, 10: s.RunP95Seconds, 100: s.RunP99Seconds} {
		if got == nil {
			t.Errorf("none, want %v", want)
		} else if *got < want*0.97 || *got > want*1.03 {
			t.Errorf("%v, want %v", *got, want)
		}
	}
}
