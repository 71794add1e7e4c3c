package metrics

import "sort"

// lookback is how long a sample stands for its series when no newer one has come, as in Prometheus.
const lookback = 5 * 60 * 1000

// arithmetic is Prometheus's way to make rates of samples. Its results are equal to the last bit, so that a value at a
// threshold is on the same side of it here and there.
type arithmetic struct {
	// span is the length of the range, in milliseconds.
	span int64
	// leftOpen leaves out a sample at the very beginning of a range, as Prometheus does since 3.0.
	leftOpen bool
}

// begin is the earliest time that is within a range that starts at start.
func (a arithmetic) begin(start int64) int64 {
	if a.leftOpen {
		start++
	}
	return start
}

// from is the index of the first sample within the range that ends at now.
func (a arithmetic) from(times []int64, now int64) int {
	start := a.begin(now - a.span)
	return sort.Search(len(times), func(i int) bool { return times[i] >= start })
}

// fresh says whether a sample still stands for its series at now.
func (a arithmetic) fresh(at, now int64) bool {
	if a.leftOpen {
		return now-at < lookback
	}
	return now-at <= lookback
}

// increase writes what each of a track's numbers has gained within the range that ends at now, extrapolated to its
// ends, and says whether there is a result: two samples are needed.
func (a arithmetic) increase(out []float64, t *track, now int64) bool {
	return a.extrapolate(out, t, now, 1)
}

// rate is increase per second.
func (a arithmetic) rate(out []float64, t *track, now int64) bool {
	return a.extrapolate(out, t, now, float64(a.span)/1000)
}

func (a arithmetic) extrapolate(out []float64, t *track, now int64, seconds float64) bool {
	lo := a.from(t.times, now)
	n := len(t.times) - lo
	if n < 2 {
		return false
	}
	t.gain(out, lo)
	first, last := t.times[lo], t.times[len(t.times)-1]
	start := float64(first-(now-a.span)) / 1000
	end := float64(now-last) / 1000
	sampled := float64(last-first) / 1000
	mean := sampled / float64(n-1)
	threshold := mean * 1.1
	if end >= threshold {
		end = mean / 2
	}
	for i, begin := range t.sample(lo) {
		out[i] *= (sampled + a.start(start, threshold, mean, sampled, begin, out[i]) + end) / sampled / seconds
	}
	return true
}

// start is how far before the first sample the increase is thought to have begun: a series that begins near the range's
// start began there, another half an interval earlier, and no counter was ever below zero.
func (a arithmetic) start(start, threshold, mean, sampled, begin, gained float64) float64 {
	if a.leftOpen && start >= threshold { // Prometheus 3 looks at the threshold first
		start = mean / 2
	}
	if zero := sampled * (begin / gained); zero >= 0 { // not NaN, as without a gain
		start = min(start, zero)
	}
	if start >= threshold {
		start = mean / 2
	}
	return start
}
