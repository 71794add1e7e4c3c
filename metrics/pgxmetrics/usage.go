package pgxmetrics

import (
	"sync"
	"time"
)

// usage adds up over time how many there were of something.
type usage struct {
	mu      sync.Mutex
	n       int64
	busy    time.Duration // n times time, until changed
	changed time.Duration // since the tracer was made
	sampled time.Duration
}

// add notes that there is one more or less.
func (u *usage) add(n int64, now time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.advance(now)
	u.n += n
}

func (u *usage) advance(now time.Duration) {
	u.busy += time.Duration(u.n) * max(0, now-u.changed)
	u.changed = max(now, u.changed)
}

// correct sets the number to what it truly is.
func (u *usage) correct(n int64, now time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.advance(now)
	u.n = n
}

// sample returns the number now, its average since the last call, and its sum over that time.
func (u *usage) sample(now time.Duration) (n int64, average float64, sum time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.advance(now)
	average, sum = float64(u.n), u.busy
	if since := now - u.sampled; since > 0 {
		average = float64(u.busy) / float64(since)
	}
	u.busy, u.sampled = 0, now
	return u.n, average, sum
}
