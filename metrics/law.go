package metrics

import (
	"fmt"
	"math"
	"slices"
)

// load is what one resource did in one step of time.
type load struct {
	x    float64 // throughput per second
	used float64 // of the resource, such as cores or connections
}

// demand is the utilization law fitted to observations: used = base + perEvent·throughput. base is what the resource
// gives to others, whatever the throughput; the mean use over the mean throughput would take it for demand.
type demand struct {
	base, perEvent float64
	low, high      float64 // 95 % interval of perEvent
	meanX, meanU   float64
	n              int
	spread         float64 // of throughput, the 95th percentile over the 5th
	follows        float64 // the part of the use's variance that throughput explains
}

const (
	notEnough = "not enough data"
	// Below these a ceiling would be a guess.
	leastSteps   = 20
	leastSpread  = 1.5
	leastEvents  = 100
	leastSignal  = .9 // of the variance of throughput that is more than chance
	leastFollows = .5
	// A ceiling that is known to no better than this factor is none.
	widestCeiling = 1.5
)

// fitDemand fits the law by least squares. seconds is a step's length. why says what is missing, beginning with "not
// enough data", or that the use does not follow throughput.
func fitDemand(steps []load, seconds float64) (d demand, why string) {
	d = demand{n: len(steps)}
	if d.n < leastSteps {
		return d, fmt.Sprintf("%s: %d observations of %.0f s, %d are needed", notEnough, d.n, seconds, leastSteps)
	}
	xs := make([]float64, d.n)
	for i, s := range steps {
		xs[i] = s.x
		d.meanX += s.x / float64(d.n)
		d.meanU += s.used / float64(d.n)
	}
	if events := d.meanX * seconds * float64(d.n); events < leastEvents {
		return d, fmt.Sprintf("%s: %.0f requests, %d are needed", notEnough, events, leastEvents)
	}
	slices.Sort(xs)
	lower, upper := quantileOf(xs, .05), quantileOf(xs, .95)
	d.spread = math.Inf(1)
	if lower > 0 {
		d.spread = upper / lower
	}
	var sxx, sxu, suu float64
	for _, s := range steps {
		dx, du := s.x-d.meanX, s.used-d.meanU
		sxx, sxu, suu = sxx+dx*dx, sxu+dx*du, suu+du*du
	}
	if d.spread < leastSpread {
		return d, fmt.Sprintf("%s: throughput varied by a factor of %.2f, %.1f is needed", notEnough, d.spread, leastSpread)
	}
	// Counts of independent events vary by chance as much as their mean. A line through chance is too flat.
	if chance := d.meanX / seconds; 1-chance/(sxx/float64(d.n-1)) < leastSignal {
		return d, notEnough + ": too few requests to tell their changes from chance"
	}
	d.perEvent = sxu / sxx
	d.base = d.meanU - d.perEvent*d.meanX
	if d.base < 0 { // nothing gives less than nothing to others
		d.throughOrigin(steps)
	}
	residuals := make([]float64, d.n)
	rss := 0.0
	for i, s := range steps {
		residuals[i] = s.used - d.base - d.perEvent*s.x
		rss += residuals[i] * residuals[i]
	}
	if suu > 0 {
		d.follows = max(0, 1-rss/suu)
	}
	se := math.Sqrt(rss / float64(d.n-2) / sxx * inflation(residuals))
	d.low, d.high = d.perEvent-1.96*se, d.perEvent+1.96*se
	if d.low <= 0 || d.follows < leastFollows {
		return d, "its use does not follow throughput, so that it has no ceiling in requests"
	}
	return d, ""
}

func (d *demand) throughOrigin(steps []load) {
	var xx, xu float64
	for _, s := range steps {
		xx, xu = xx+s.x*s.x, xu+s.x*s.used
	}
	d.base, d.perEvent = 0, xu/xx
}

// ceiling is the throughput at which all of capacity is used, with the interval that the fit leaves. A line turns
// around its mean, so that a steeper one has a lower base.
func (d demand) ceiling(capacity float64) (x, low, high float64) {
	at := func(perEvent float64) float64 {
		return max(0, d.meanX+(capacity-d.base-d.perEvent*d.meanX)/perEvent)
	}
	return max(0, (capacity-d.base)/d.perEvent), at(d.high), at(d.low)
}

// inflation is by how much neighbours that resemble each other make a variance look too small.
func inflation(residuals []float64) float64 {
	var same, next float64
	for i, r := range residuals {
		same += r * r
		if i > 0 {
			next += r * residuals[i-1]
		}
	}
	if same == 0 || next <= 0 {
		return 1
	}
	rho := min(next/same, .95)
	return (1 + rho) / (1 - rho)
}

// quantileOf sorted numbers, interpolated.
func quantileOf(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}
