package queue

import (
	"context"
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
