package metrics

// The growth of slow gauges is their slope over hours of samples at whole steps of the clock: deriv over [6h:5m].
const (
	slowStep = 5 * 60 * 1000
	slowSpan = 6 * 60 * 60 * 1000
	// none is at a step without a value: no gauge is below zero.
	none = -1.0
)

type slowSample struct {
	at    int64
	value float64
}

// keepSlow adds what the gauge was at a whole step, and forgets what no slope needs any longer.
func (t *track) keepSlow(a arithmetic, at int64) {
	drop := 0
	for drop < len(t.slow) && t.slow[drop].at < at-slowSpan {
		drop++
	}
	t.slow = append(t.slow[:0], t.slow[drop:]...)
	if value, ok := t.gauge(a, at); ok {
		t.slow = append(t.slow, slowSample{at, value})
	}
}

// slope is the slope per second of the largest of several tracks at each step, by least squares, and whether there are
// two steps to tell it from.
func (a arithmetic) slope(tracks []*track, only string, now int64) (float64, bool) {
	start := a.begin(now - slowSpan)
	var steps [slowSpan/slowStep + 1]float64
	for i := range steps {
		steps[i] = none
	}
	for _, t := range tracks {
		if !t.of(only) {
			continue
		}
		for _, s := range t.slow {
			if s.at >= start {
				i := (s.at - start) / slowStep
				steps[i] = max(steps[i], s.value)
			}
		}
	}
	return leastSquares(steps[:])
}

// leastSquares is the slope of values a step apart, those that are none left out. Sums are compensated as Prometheus's
// are, so that large sizes with small changes keep their digits.
func leastSquares(values []float64) (perSecond float64, ok bool) {
	var x, y, xy, xx kahan
	n, first, origin, constant := 0.0, 0.0, 0, true
	for i, v := range values {
		if v == none {
			continue
		}
		if n == 0 {
			first, origin = v, i
		}
		constant = constant && v == first
		at := float64((i-origin)*slowStep) / 1000
		n++
		x.add(at)
		y.add(v)
		xy.add(at * v)
		xx.add(at * at)
	}
	if n < 2 {
		return 0, false
	}
	if constant {
		return 0, true
	}
	covariance := xy.total() - x.total()*y.total()/n
	variance := xx.total() - x.total()*x.total()/n
	return covariance / variance, true
}

// kahan is a sum with Neumaier's compensation: it keeps what each addition lost. That is told as Knuth does, without
// asking which of the two is the larger.
type kahan struct{ sum, lost float64 }

func (k *kahan) add(v float64) {
	t := k.sum + v
	added := t - k.sum
	k.lost += (k.sum - (t - added)) + (v - added)
	k.sum = t
}

func (k *kahan) total() float64 { return k.sum + k.lost }
