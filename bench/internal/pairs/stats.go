package pairs

import (
	"math"
	"slices"
)

// Spread is a median with what surrounds it.
type Spread struct {
	Median float64
	// Q1 and Q3 are the quartiles: half of all values lie between them.
	Q1, Q3 float64
	// Low and High hold the true median with a confidence of 95 %, as far as the values are independent.
	Low, High float64
	N         int
}

// SpreadOf sums values up. It is zero for no values.
func SpreadOf(values []float64) Spread {
	n := len(values)
	if n == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	// The number of values below the median is binomial: n/2 on average, with a deviation of √n/2.
	reach := 1.96 * math.Sqrt(float64(n)) / 2
	low := int(math.Floor(float64(n)/2 - reach))
	high := int(math.Ceil(float64(n)/2 + reach))
	return Spread{
		Median: quantile(sorted, 0.5), Q1: quantile(sorted, 0.25), Q3: quantile(sorted, 0.75),
		Low: sorted[max(0, low)], High: sorted[min(n-1, high)], N: n,
	}
}

// quantile interpolates between the neighbours.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	below := int(at)
	if below == len(sorted)-1 {
		return sorted[below]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}

// Time is the time of one operation in ns.
func (r Result) Time() Spread { return SpreadOf(r.Rounds) }

// Ratio compares the time of ours with that of peer, round by round.
func Ratio(ours, peer Result) Spread {
	n := min(len(ours.Rounds), len(peer.Rounds))
	ratios := make([]float64, n)
	for i := range n {
		ratios[i] = ours.Rounds[i] / peer.Rounds[i]
	}
	return SpreadOf(ratios)
}
