package metrics

import (
	"maps"
	"math"
	"slices"
	"time"
)

// frame is what was known of all instances at one moment of our clock.
type frame struct {
	at       time.Time
	readings map[string]*reading // by instance, never changed
}

// window keeps the frames of the last minutes, the oldest first.
type window struct {
	length time.Duration
	frames []frame
}

func (w *window) add(f frame) {
	w.frames = append(w.frames, f)
	drop := 0
	for drop < len(w.frames)-1 && f.at.Sub(w.frames[drop].at) > w.length {
		drop++
	}
	w.frames = slices.Delete(w.frames, 0, drop)
}

func (w *window) newest() frame {
	if len(w.frames) == 0 {
		return frame{}
	}
	return w.frames[len(w.frames)-1]
}

func (w *window) elapsed() time.Duration {
	if len(w.frames) == 0 {
		return 0
	}
	return w.newest().at.Sub(w.frames[0].at)
}

// instances lists those seen in the window; only, where it is not empty, restricts it to one.
func (w *window) instances(only string) []string {
	seen := map[string]bool{}
	for _, f := range w.frames {
		for name := range f.readings {
			if only == "" || name == only {
				seen[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// increase is what one instance has counted within the window, by scope. An instance that has vanished keeps what it
// counted before; one that began within the window, perhaps under a name used before, counts from its zero.
func (w *window) increase(instance, id string, width int) map[string][]float64 {
	total := map[string][]float64{}
	var before *reading
	for _, f := range w.frames {
		now := f.readings[instance]
		if now == nil {
			continue
		}
		fresh := before == nil && now.age() < f.at.Sub(w.frames[0].at) || before != nil && now.Started != before.Started
		for scope, numbers := range now.Points[id] {
			sum := total[scope]
			if sum == nil {
				sum = make([]float64, width)
				total[scope] = sum
			}
			if before == nil && !fresh {
				continue
			}
			var was []float64
			if !fresh {
				was = before.Points[id][scope]
			}
			for i, n := range numbers {
				if i < len(was) {
					n -= was[i]
				}
				sum[i] += max(n, 0)
			}
		}
		before = now
	}
	return total
}

// scale corrects for the age of what another instance has stored: of two readings up to an interval old each, the time
// between them is not the time between our frames.
func (w *window) scale(instance string) float64 {
	first, last := w.frames[0].readings[instance], w.newest().readings[instance]
	if first == nil || last == nil || first.Started != last.Started || last.At <= first.At {
		return 1
	}
	own := time.Duration(last.At-first.At) * time.Millisecond
	return min(2, max(.5, float64(w.elapsed())/float64(own)))
}

// values computes a metric by scope. A scope without a value is absent, or NaN.
func (w *window) values(m KeyMetric, only string) map[string]float64 {
	out := map[string]float64{}
	if m.gauge() {
		for name, r := range w.newest().readings {
			for scope, numbers := range r.Points[m.ID] {
				if only == "" || name == only {
					out[scope] = max(out[scope], numbers[0])
				}
			}
		}
		if m.Statistic == Age {
			for scope, last := range out {
				out[scope] = float64(w.newest().at.UnixMilli())/1000 - last
			}
		}
		return out
	}
	seconds := w.elapsed().Seconds()
	sums := map[string][]float64{}
	for _, name := range w.instances(only) {
		scale := 1.0
		if m.Statistic != Quantile && m.Statistic != Share { // those are the same at any scale, and stay exact
			scale = w.scale(name)
		}
		for scope, numbers := range w.increase(name, m.ID, m.width()) {
			sum := sums[scope]
			if sum == nil {
				sum = make([]float64, len(numbers))
				sums[scope] = sum
			}
			for i, n := range numbers {
				if m.Statistic == RateOfOne {
					sum[i] = max(sum[i], n*scale)
				} else {
					sum[i] += n * scale
				}
			}
		}
	}
	for scope, sum := range sums {
		out[scope] = m.compute(sum, seconds)
	}
	return out
}

// compute makes the value of what was counted in so many seconds.
func (m KeyMetric) compute(counted []float64, seconds float64) float64 {
	switch m.Statistic {
	case Quantile:
		return bucketQuantile(m.Param, m.Series.Buckets, counted)
	case Share:
		if counted[1] == 0 {
			return math.NaN()
		}
		return counted[0] / counted[1]
	}
	if seconds <= 0 {
		return math.NaN()
	}
	if m.Statistic == OverPerMinute {
		seconds /= 60
	}
	return counted[0] / seconds
}

// bucketQuantile interpolates as Prometheus's histogram_quantile does. Counts are cumulative, +Inf's last.
func bucketQuantile(q float64, bounds, counts []float64) float64 {
	total := counts[len(counts)-1]
	if total == 0 || len(bounds) == 0 {
		return math.NaN()
	}
	rank := q * total
	b := 0
	for b < len(bounds) && counts[b] < rank {
		b++
	}
	if b == len(bounds) {
		return bounds[b-1]
	}
	start, below := 0.0, 0.0
	if b > 0 {
		start, below = bounds[b-1], counts[b-1]
	}
	return start + (bounds[b]-start)*(rank-below)/(counts[b]-below)
}
