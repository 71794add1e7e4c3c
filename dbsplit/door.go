package dbsplit

import (
	"context"
	"sync"
	"time"
)

// door lets callers of a pool open connections, and only one at a time while the server lets nobody in. A server that hangs
// accepts connections all the same, and when it goes on, it has to greet every one of them, long after its client has
// gone, before it greets those who still wait.
type door struct {
	slow time.Duration // an attempt that takes longer is awaited by those who come

	mu      sync.Mutex
	waiting []*entrant // those under way, the oldest first
	shut    bool       // the last one that ended has failed
}

type entrant struct {
	began time.Time
	done  chan struct{} // closed after err is set
	err   error
}

// enter begins an attempt, or waits for one under way and returns its error.
func (d *door) enter(ctx context.Context) error {
	for {
		d.mu.Lock()
		if len(d.waiting) == 0 || !d.shut && time.Since(d.waiting[0].began) < d.slow {
			d.waiting = append(d.waiting, &entrant{began: time.Now(), done: make(chan struct{})})
			d.mu.Unlock()
			return nil
		}
		first := d.waiting[0]
		d.mu.Unlock()
		select {
		case <-first.done:
			if first.err != nil {
				return first.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leave ends the oldest attempt: which one has ended pgxpool does not tell, and those who wait want to know only whether
// somebody was let in.
func (d *door) leave(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) == 0 {
		return
	}
	first := d.waiting[0]
	d.waiting = d.waiting[1:]
	d.shut, first.err = err != nil, err
	close(first.done)
}
