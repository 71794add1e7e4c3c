package metrics

import (
	"math"
	"sort"
)

// almostEqual is the relative difference of neighbouring counts that Prometheus 3 takes for noise of the arithmetic.
const almostEqual = 1e-12

// bucketQuantile interpolates as Prometheus's histogram_quantile does. Counts are cumulative, +Inf's last; they are made
// monotonic in place.
func (a arithmetic) bucketQuantile(q float64, bounds, counts []float64) float64 {
	a.monotonic(counts)
	if len(bounds) == 0 {
		return math.NaN()
	}
	rank := q * counts[len(counts)-1]
	b := sort.Search(len(bounds), func(i int) bool { return counts[i] >= rank })
	if b == len(bounds) {
		return bounds[b-1] // #nosec G602 -- one count more than bounds, of which there are some
	}
	start, count := 0.0, counts[b]
	if b > 0 {
		start = bounds[b-1] // #nosec G602 -- b is at least 1
		count -= counts[b-1]
		rank -= counts[b-1]
	}
	return start + (bounds[b]-start)*(rank/count) // NaN of nothing: 0/0
}

// monotonic raises a count that is below the one before: the sums of rates have noise, and instances whose buckets were
// not read at the same moment have more.
func (a arithmetic) monotonic(counts []float64) {
	before := counts[0]
	for i, n := range counts {
		if a.leftOpen && noise(before, n) {
			n = before
		}
		before = max(before, n)
		counts[i] = before
	}
}

func noise(x, y float64) bool { return math.Abs(x-y)/(x+y) < almostEqual }
