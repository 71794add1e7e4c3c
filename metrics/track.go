package metrics

import "slices"

// track is what one instance has told of one metric in one scope: samples of a few numbers each, the oldest first.
type track struct {
	instance string
	width    int
	times    []int64   // milliseconds, rising
	numbers  []float64 // width of them for each time
	stale    bool      // the series has ended after its last sample
	slow     []slowSample
}

// of says whether the track is one of those asked for: all, or only one instance's.
func (t *track) of(only string) bool { return only == "" || t.instance == only }

func (t *track) sample(i int) []float64 { return t.numbers[i*t.width : (i+1)*t.width] }

func (t *track) last() []float64 { return t.sample(len(t.times) - 1) }

// put adds a sample. One that is not newer than the last is left out, as Prometheus does.
func (t *track) put(at int64, numbers []float64) {
	if n := len(t.times); n > 0 && at <= t.times[n-1] {
		return
	}
	t.times = append(t.times, at)
	t.numbers = append(t.numbers, numbers...)
	t.stale = false
}

// forget drops the samples before a time, and keeps the memory.
func (t *track) forget(before int64) {
	drop := 0
	for drop < len(t.times) && t.times[drop] < before {
		drop++
	}
	t.times = slices.Delete(t.times, 0, drop)
	t.numbers = slices.Delete(t.numbers, 0, drop*t.width)
}

// gain writes what each number has gained since sample lo. A number that is lower than before began again at zero.
func (t *track) gain(out []float64, lo int) {
	before := t.sample(lo)
	for i, last := range t.last() {
		out[i] = last - before[i]
	}
	for k := lo + 1; k < len(t.times); k++ {
		now := t.sample(k)
		for i, n := range now {
			if n < before[i] {
				out[i] += before[i]
			}
		}
		before = now
	}
}

// gauge is the first number at a time not before the last sample, and whether there is one.
func (t *track) gauge(a arithmetic, now int64) (float64, bool) {
	n := len(t.times)
	if n == 0 || t.stale || !a.fresh(t.times[n-1], now) {
		return 0, false
	}
	return t.last()[0], true
}
