package queue

import (
	"errors"
	"fmt"
	"time"
)

const (
	leastLater = 100 * time.Millisecond
	mostLater  = 24 * time.Hour
)

var errGivenBack = errors.New("queue: the handler gives the job back for now")

// LaterError is what Later returns.
type LaterError struct {
	// After is when the job comes back, from the return of its handler on: 100ms to 24h, to which what is less or more is cut.
	After time.Duration
	// Err is why, or nil.
	Err error
}

// Later is the error of a handler that cannot do its job now through no fault of the job, as when it was answered with 429: the job comes
// back after d and no attempt is counted. Nothing counts how often: a handler that may return it for ever should look at how old its
// job is, and fail. Where the other jobs of the queue would meet the same, Throttle the queue, too. err says why, and may be nil.
func Later(d time.Duration, err error) error { return &LaterError{After: d, Err: err} }

func (e *LaterError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("queue: the job is to come back after %v", e.wait())
	}
	return fmt.Sprintf("queue: the job is to come back after %v: %v", e.wait(), e.Err)
}

// Unwrap returns why.
func (e *LaterError) Unwrap() error { return e.Err }

func (e *LaterError) wait() time.Duration { return min(max(e.After, leastLater), mostLater) }
