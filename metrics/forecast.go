package metrics

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// sample is a value at a time, in seconds since any beginning.
type sample struct{ t, v float64 }

// line is a robust line through samples: the median of the slopes between all pairs (Theil and Sen), which a third of
// the samples cannot spoil, with an interval that supposes no distribution (Sen).
type line struct {
	slope, low, high float64 // per second
	t, v             float64 // a point on it: the medians
	sigma            float64 // what samples stray from it
	n                int
}

// z99 makes intervals of 99 %: a slope that is positive over all of it is chance once in 200 times.
const z99 = 2.576

// fitLine returns ok false for fewer than three samples, or none at different times.
func fitLine(samples []sample) (l line, ok bool) {
	n := len(samples)
	l.n = n
	slopes := make([]float64, 0, n*(n-1)/2)
	for i, a := range samples {
		for _, b := range samples[i+1:] {
			if b.t != a.t {
				slopes = append(slopes, (b.v-a.v)/(b.t-a.t))
			}
		}
	}
	if n < 3 || len(slopes) == 0 {
		return l, false
	}
	slices.Sort(slopes)
	l.slope = quantileOf(slopes, .5)
	ts, vs := make([]float64, n), make([]float64, n)
	for i, s := range samples {
		ts[i] = s.t
	}
	slices.Sort(ts)
	l.t = quantileOf(ts, .5)
	for i, s := range samples {
		vs[i] = s.v - l.slope*(s.t-l.t)
	}
	residuals := slices.Clone(vs)
	slices.Sort(vs)
	l.v = quantileOf(vs, .5)
	for i := range residuals {
		residuals[i] -= l.v
		vs[i] = math.Abs(residuals[i])
	}
	slices.Sort(vs)
	l.sigma = 1.4826 * quantileOf(vs, .5) // the median deviation of a normal distribution
	// Kendall's variance; samples that resemble their neighbours are worth fewer.
	count := float64(n)
	rank := z99 * math.Sqrt(count*(count-1)*(2*count+5)/18*inflation(residuals))
	pairs := float64(len(slopes))
	l.low = slopes[int(max(0, math.Floor((pairs-rank)/2)))]
	l.high = slopes[int(min(pairs-1, math.Ceil((pairs+rank)/2)))]
	return l, true
}

// Saturation is when a resource will be used up if it goes on as it did.
type Saturation struct {
	// Seconds from now on, the likeliest.
	Seconds float64 `json:"seconds"`
	// LowSeconds and HighSeconds hold it with 99 % confidence, if it goes on in a line. High is null when the slowest
	// growth that fits does not get there within the horizon.
	LowSeconds  float64  `json:"low_seconds"`
	HighSeconds *float64 `json:"high_seconds"`
	// PerHour is by how much the utilization grows.
	PerHour float64 `json:"utilization_per_hour"`
	// HistorySeconds is what it is based on. Nothing is said about more than four times that.
	HistorySeconds float64 `json:"history_seconds"`
}

const (
	leastWindows = 6
	horizonTimes = 4
	// Samples of a forecast lie at least a window apart, so that each is new; more than this many add little.
	mostSamples = 72
)

// forecast says when a utilization reaches 1. samples are in order, the last is now. why says why there is no answer,
// beginning with "not enough data" where that is so.
func forecast(samples []sample, window time.Duration) (*Saturation, string) {
	if len(samples) < 2 {
		return nil, notEnough + ": no history"
	}
	first, now := samples[0].t, samples[len(samples)-1].t
	history := now - first
	if least := leastWindows * window.Seconds(); history < least {
		return nil, fmt.Sprintf("%s: %s of history, %s are needed", notEnough, rough(history), rough(least))
	}
	width := max(window.Seconds(), history/mostSamples)
	bins := average(samples, width)
	l, ok := fitLine(bins)
	if !ok || l.n < leastWindows {
		return nil, fmt.Sprintf("%s: %d windows with values, %d are needed", notEnough, l.n, leastWindows)
	}
	if l.low <= 0 {
		return nil, fmt.Sprintf("it does not grow: between %+.2g and %+.2g an hour over %s", 3600*l.low, 3600*l.high, rough(history))
	}
	level := l.v + l.slope*(now-l.t)
	if level >= 1 {
		return &Saturation{PerHour: 3600 * l.slope, HistorySeconds: history, HighSeconds: new(float64)}, ""
	}
	horizon := horizonTimes * history
	// The line's own uncertainty, and that of a new slope around its middle.
	stray := z99 * 1.2533 * l.sigma * math.Sqrt(inflationOf(bins, l)/float64(l.n))
	when := func(slope, off float64) float64 { return max(0, l.t+(1-l.v-off)/slope-now) }
	s := &Saturation{
		Seconds: when(l.slope, 0), LowSeconds: when(l.high, stray),
		PerHour: 3600 * l.slope, HistorySeconds: history,
	}
	if s.Seconds > horizon {
		return nil, fmt.Sprintf("it grows by %.2g an hour, and is not used up within %s, which is as far as %s of history show", s.PerHour, rough(horizon), rough(history))
	}
	if high := when(l.low, -stray); high <= horizon {
		s.HighSeconds = &high
	}
	return s, ""
}

func inflationOf(samples []sample, l line) float64 {
	residuals := make([]float64, len(samples))
	for i, s := range samples {
		residuals[i] = s.v - l.v - l.slope*(s.t-l.t)
	}
	return inflation(residuals)
}

// average makes one sample of those in each width of time. A last part that is less than half full is left out.
func average(samples []sample, width float64) []sample {
	var out []sample
	for i := 0; i < len(samples); {
		begin := samples[i].t
		var sum sample
		n := 0
		for ; i < len(samples) && samples[i].t < begin+width; i++ {
			sum.t, sum.v, n = sum.t+samples[i].t, sum.v+samples[i].v, n+1
		}
		if full := samples[min(i, len(samples)-1)].t - begin; len(out) > 0 && full < width/2 {
			break
		}
		out = append(out, sample{sum.t / float64(n), sum.v / float64(n)})
	}
	return out
}

// rough is a duration for people.
func rough(seconds float64) string {
	switch {
	case seconds < 120:
		return fmt.Sprintf("%.0f s", seconds)
	case seconds < 2*3600:
		return fmt.Sprintf("%.0f min", seconds/60)
	case seconds < 48*3600:
		return fmt.Sprintf("%.1f h", seconds/3600)
	}
	return fmt.Sprintf("%.1f days", seconds/86400)
}
