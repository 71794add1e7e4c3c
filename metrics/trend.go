package metrics

import "time"

const (
	trendEvery = 5 * time.Minute
	trendSpan  = 6 * time.Hour
	trendLeast = 30 * time.Minute
)

// trend keeps a few hours of slow gauges.
type trend struct{ samples []trendSample }

type trendSample struct {
	at     time.Time
	values map[string]float64
}

// perDay adds values and returns their slopes, by least squares as Prometheus's deriv, once there is half an hour.
func (t *trend) perDay(now time.Time, values map[string]float64) map[string]float64 {
	if n := len(t.samples); n == 0 || now.Sub(t.samples[n-1].at) >= trendEvery {
		t.samples = append(t.samples, trendSample{now, values})
	}
	for now.Sub(t.samples[0].at) > trendSpan {
		t.samples = t.samples[1:]
	}
	out := map[string]float64{}
	for scope := range values {
		if slope, ok := t.slope(scope); ok {
			out[scope] = slope * (24 * time.Hour).Seconds()
		}
	}
	return out
}

func (t *trend) slope(scope string) (perSecond float64, ok bool) {
	var n, sx, sy, sxx, sxy, last float64
	var first time.Time
	for _, s := range t.samples {
		y, known := s.values[scope]
		if !known {
			continue
		}
		if n == 0 {
			first = s.at
		}
		x := s.at.Sub(first).Seconds()
		n, sx, sy, sxx, sxy, last = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y, x
	}
	if last < trendLeast.Seconds() {
		return 0, false
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx), true
}
