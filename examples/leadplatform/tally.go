package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Tally counts what clients saw since it was last taken.
type Tally struct {
	mu  sync.Mutex
	now Seen
}

// Seen is what clients saw in one interval.
type Seen struct {
	Durations []time.Duration
	// Errors are answers of class 5xx and none at all. Refused are writes that read-only mode refused, no errors.
	Errors, Refused int
	// Stale counts clients that could not read what they had just written.
	Stale int
}

// Done counts one request. readOnly says that its answer names read-only mode as the reason.
func (t *Tally) Done(d time.Duration, status int, readOnly bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.Durations = append(t.now.Durations, d)
	switch {
	case status == 503 && readOnly:
		t.now.Refused++
	case err != nil || status >= 500:
		t.now.Errors++
	}
}

// Stale counts a client that could not read its own write.
func (t *Tally) Stale() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.Stale++
}

// Take returns what was seen and begins anew.
func (t *Tally) Take() Seen {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := t.now
	t.now = Seen{}
	return seen
}

// Quantile returns the q-quantile of the durations, exactly.
func (s Seen) Quantile(q float64) time.Duration {
	if len(s.Durations) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.Durations))
	return sorted[int(math.Ceil(q*float64(len(sorted))))-1]
}

// zipf returns an index below n, small ones far more often.
func zipf(n int) int {
	return min(n-1, int(math.Exp(rand.Float64()*math.Log(float64(n)+1)))-1)
}
