package dbsplit

import (
	"sync"
	"time"
)

// usage adds up how long a pool's connections have been in use, so that what happens between two samples counts.
type usage struct {
	mu      sync.Mutex
	held    int64
	busy    time.Duration // connections times time, until changed
	changed time.Duration // since the DB was opened
	sampled time.Duration
	touched time.Duration // when one was last taken or given back
}

// add notes that a connection was taken or given back.
func (u *usage) add(n int64, now time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.advance(now)
	u.held += n
	u.touched = max(now, u.touched)
}

func (u *usage) advance(now time.Duration) {
	u.busy += time.Duration(u.held) * max(0, now-u.changed)
	u.changed = max(now, u.changed)
}

// now returns how many connections are in use, and when one was last taken or given back.
func (u *usage) now() (held int64, touched time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.held, u.touched
}

// sample returns the average number of connections in use since the last call. count tells the true number now: connections
// that were hijacked went by unnoticed. Until the next sample now may be more than that, where one is taken or given back meanwhile,
// and is never less.
func (u *usage) sample(count func() int64, now time.Duration) float64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.advance(now)
	held := count()
	average := float64(held)
	if since := now - u.sampled; since > 0 {
		average = float64(u.busy) / float64(since)
	}
	u.held, u.busy, u.sampled = held, 0, now
	return average
}
