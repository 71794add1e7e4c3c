package metrics

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"
)

// History is the reply of GET /api/v1/performance/capacity/history: key metrics over time, for charts that have a past
// when they first appear.
type History struct {
	// Start is the time of the first value of every series.
	Start time.Time `json:"start"`
	// StepSeconds is the time between two values.
	StepSeconds float64 `json:"step_seconds"`
	// Series are the key metrics, in the table's order, one for each scope that had a value.
	Series []HistorySeries `json:"series"`
	// Reach is fleet or instance: what the values are of.
	Reach string `json:"reach"`
	// Dropped is how many scopes have no history, because there were more than are kept.
	Dropped int `json:"dropped"`
}

// HistorySeries is one key metric of one scope over time.
type HistorySeries struct {
	// Metric is the key metric's ID.
	Metric string `json:"metric"`
	// Scope are the scope's labels.
	Scope map[string]string `json:"scope"`
	// Unit is of values and thresholds.
	Unit Unit `json:"unit"`
	// Warning and Critical are the thresholds, or null when the metric has none.
	Warning  *float64 `json:"warning"`
	Critical *float64 `json:"critical"`
	// Values have six digits. A value is the step's worst where the metric has thresholds, so that a chart shows all
	// that alerted, and else the step's mean. Null is no value: nothing happened, or nothing was measured.
	Values []*float64 `json:"values"`
}

// historySeries bounds the memory of one reach: 150 rings of 360 numbers are 432 kB.
const historySeries = 150

// historyKey is a key metric and a scope of it.
type historyKey struct{ metric, scope string }

// history keeps the values of the last steps, downsampled. It is safe for concurrent use.
type history struct {
	table []KeyMetric

	mu sync.Mutex
	timeline
	rings   map[historyKey]*ring
	refused map[historyKey]bool
}

// ring are one series' values, NaN where there is none.
type ring struct {
	values [keptSteps]float64
	n      float64 // of values in the newest step
	last   time.Time
}

// newHistory keeps an hour at a window of five minutes: thirty values to a window.
func newHistory(table []KeyMetric, interval, window time.Duration) *history {
	return &history{
		table: table, timeline: timeline{step: max(interval, window/30, time.Millisecond)},
		rings: map[historyKey]*ring{}, refused: map[historyKey]bool{},
	}
}

// add takes the values of now, by key metric and scope. Time that does not go forward adds to the newest step.
func (h *history) add(now time.Time, values map[string]map[string]float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.advance(now, func(i int) {
		for _, r := range h.rings {
			r.values[i] = math.NaN()
		}
	})
	for _, m := range h.table {
		for scope, v := range values[m.ID] {
			if r := h.ring(historyKey{m.ID, scope}); r != nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
				r.put(h.head, m, v)
				r.last = now
			}
		}
	}
}

func (r *ring) put(at int, m KeyMetric, v float64) {
	was := r.values[at]
	r.n++
	switch {
	case math.IsNaN(was):
		r.n = 1
		r.values[at] = v
	case !m.HasThresholds():
		r.values[at] = was + (v-was)/r.n
	case m.Op.past(v, was):
		r.values[at] = v
	}
}

// ring finds or makes one. When there are too many, those go that have had no value for as long as is kept.
func (h *history) ring(key historyKey) *ring {
	if r := h.rings[key]; r != nil {
		return r
	}
	if len(h.rings) >= historySeries {
		maps.DeleteFunc(h.rings, func(_ historyKey, r *ring) bool { return h.newest.Sub(r.last) >= h.kept() })
	}
	if len(h.rings) >= historySeries {
		if len(h.refused) < historySeries {
			h.refused[key] = true
		}
		return nil
	}
	r := &ring{}
	for i := range r.values {
		r.values[i] = math.NaN()
	}
	h.rings[key] = r
	delete(h.refused, key)
	return r
}

// report returns what is known since a time, of all metrics or of those wanted.
func (h *history) report(since time.Time, wanted []string, reach string) *History {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := &History{StepSeconds: h.step.Seconds(), Series: []HistorySeries{}, Reach: reach, Dropped: len(h.refused)}
	n := h.steps
	if age := h.newest.Sub(since); !since.IsZero() {
		n = min(n, max(0, int(age/h.step)+1))
	}
	out.Start = h.newest.Add(-time.Duration(max(n-1, 0)) * h.step)
	for _, m := range h.table {
		if len(wanted) > 0 && !slices.Contains(wanted, m.ID) {
			continue
		}
		var scopes []string
		for key := range h.rings {
			if key.metric == m.ID {
				scopes = append(scopes, key.scope)
			}
		}
		slices.Sort(scopes)
		for _, scope := range scopes {
			s := HistorySeries{Metric: m.ID, Scope: m.labels(scope), Unit: m.Unit, Values: make([]*float64, n)}
			if m.HasThresholds() {
				s.Warning, s.Critical = &m.Warning, &m.Critical
			}
			h.each(historyKey{m.ID, scope}, n, func(i int, v float64) { s.Values[i] = number(sixDigits(v)) })
			out.Series = append(out.Series, s)
		}
	}
	return out
}

// each calls f with the last n values that there are, the oldest of them first.
func (h *history) each(key historyKey, n int, f func(i int, v float64)) {
	r := h.rings[key]
	if r == nil {
		return
	}
	n = min(n, h.steps)
	for i := range n {
		if v := r.values[h.back(n-1-i)]; !math.IsNaN(v) {
			f(i, v)
		}
	}
}

// number is null in JSON where there is none.
func number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

func sixDigits(v float64) float64 {
	short, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 6, 64), 64)
	if err != nil {
		return v
	}
	return short
}
