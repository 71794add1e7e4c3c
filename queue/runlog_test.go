package queue

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
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
