package main

import (
	"iter"
	"math"
	"time"
)

// arrivals are the times at which virtual users arrive, counted from the start of the test. They do not depend on how
// the server does: a slow server gets no fewer users, as artillery and real people have it.
func arrivals(phases []Phase) iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		begin := 0.0
		for _, p := range phases {
			for n := 0; ; n++ {
				at := p.arrival(float64(n))
				if math.IsNaN(at) || at >= p.Duration {
					break
				}
				if !yield(time.Duration((begin + at) * float64(time.Second))) {
					return
				}
			}
			begin += p.Duration
		}
	}
}

// arrival is the time in the phase when n users have arrived: the root of rate·t + (rampTo-rate)·t²/(2·duration) = n, not
// a number when that many never arrive.
func (p Phase) arrival(n float64) float64 {
	if p.RampTo == nil || *p.RampTo == p.ArrivalRate {
		return n / p.ArrivalRate
	}
	growth := (*p.RampTo - p.ArrivalRate) / p.Duration
	return (math.Sqrt(p.ArrivalRate*p.ArrivalRate+2*growth*n) - p.ArrivalRate) / growth
}

// duration is how long users arrive.
func duration(phases []Phase) (d time.Duration) {
	for _, p := range phases {
		d += time.Duration(p.Duration * float64(time.Second))
	}
	return d
}
