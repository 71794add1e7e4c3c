package main

import (
	"math"
	"slices"
	"sync"
	"time"
)

// Tally is what the virtual users saw, by artillery's names of metrics where it has one.
type Tally struct {
	mu        sync.Mutex
	durations map[string][]time.Duration // by name of request
	counters  map[string]float64
	errors    map[string]int
}

// NewTally returns an empty one.
func NewTally() *Tally {
	return &Tally{durations: map[string][]time.Duration{}, counters: map[string]float64{staleReads: 0, "vusers.failed": 0}, errors: map[string]int{}}
}

// Count adds to a counter.
func (t *Tally) Count(name string, n float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counters[name] += n
}

// Fail counts an error by its text.
func (t *Tally) Fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errors[err.Error()]++
}

// Answered counts one request that was answered.
func (t *Tally) Answered(name string, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.durations[name] = append(t.durations[name], d)
}

// Row is the latencies of one kind of request in milliseconds.
type Row struct {
	Name     string  `json:"name"`
	Requests int     `json:"requests"`
	P50      float64 `json:"p50"`
	P95      float64 `json:"p95"`
	P99      float64 `json:"p99"`
	Max      float64 `json:"max"`
}

// Rows are one for each kind of request by name, and one for all of them at the end. Call it when the users have gone.
func (t *Tally) Rows() []Row {
	t.mu.Lock()
	defer t.mu.Unlock()
	var rows []Row
	var all []time.Duration
	for name, durations := range t.durations {
		rows = append(rows, row(name, durations))
		all = append(all, durations...)
	}
	slices.SortFunc(rows, func(a, b Row) int { return b.Requests - a.Requests })
	return append(rows, row("all", all))
}

func row(name string, durations []time.Duration) Row {
	slices.Sort(durations)
	return Row{
		Name: name, Requests: len(durations), P50: quantile(durations, 0.5), P95: quantile(durations, 0.95),
		P99: quantile(durations, 0.99), Max: quantile(durations, 1),
	}
}

// quantile is exact, of sorted durations, in milliseconds.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	d := sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
	return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
}

// Metrics are the values that checks may name.
func (t *Tally) Metrics() map[string]float64 {
	rows := t.Rows()
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[string]float64{}
	for name, value := range t.counters {
		out[name] = value
	}
	all := rows[len(rows)-1]
	if all.Requests > 0 { // no answer at all is not a fast one
		out["http.response_time.median"], out["http.response_time.p95"] = all.P50, all.P95
		out["http.response_time.p99"], out["http.response_time.max"] = all.P99, all.Max
	}
	return out
}
