package metrics

import "math"

// Trend is how a value has moved over the window.
type Trend struct {
	// Direction is rising, falling, steady or unknown.
	Direction string `json:"direction"`
	// PerHour is the slope in the value's unit, the median of all pairs' slopes, or null.
	PerHour *float64 `json:"slope_per_hour"`
	// Points and Seconds are what it is based on: values of the history, and the time between the first and the last.
	Points  int     `json:"points"`
	Seconds float64 `json:"seconds"`
}

const (
	leastTrend = 6
	// A change over the window of less than this part of the value is none to speak of.
	steadyPart = .02

	unknownTrend = "unknown"
)

// trend is a metric's over the last window.
func (h *history) trend(m KeyMetric, scope string, seconds float64) Trend {
	h.mu.Lock()
	defer h.mu.Unlock()
	var samples []sample
	step := h.step.Seconds()
	h.each(historyKey{m.ID, scope}, int(seconds/step)+1, func(i int, v float64) {
		samples = append(samples, sample{float64(i) * step, v})
	})
	return trendOf(samples)
}

func trendOf(samples []sample) Trend {
	t := Trend{Direction: unknownTrend, Points: len(samples)}
	if t.Points == 0 {
		return t
	}
	t.Seconds = samples[t.Points-1].t - samples[0].t
	l, ok := fitLine(samples)
	if t.Points < leastTrend || !ok {
		return t
	}
	perHour := 3600 * l.slope
	t.PerHour = number(sixDigits(perHour))
	switch small := math.Abs(l.slope*t.Seconds) < steadyPart*math.Abs(l.v); {
	case l.low > 0 && !small:
		t.Direction = "rising"
	case l.high < 0 && !small:
		t.Direction = "falling"
	default:
		t.Direction = "steady"
	}
	return t
}
