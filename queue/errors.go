package queue

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrUnknownQueue means that a queue is neither declared nor present in Redis. Nothing was written.
	ErrUnknownQueue = errors.New("queue: unknown queue, declare it in New or check the spelling")
	// ErrExists means that a job with the given ID, or one covered by the same Unique lock, is already stored.
	ErrExists = errors.New("queue: a job with this ID or unique lock exists already, nothing was added")
	// ErrUnconfirmed means that Redis did not say whether the job was stored, or that its replicas did not. Enqueue again
	// with the same ID, which the UnconfirmedError carries, to be sure without adding it twice: a job that is there is
	// ErrExists. One that is done by then is there only for its Retention, and is added again without.
	ErrUnconfirmed = errors.New("queue: not known whether the job was stored, enqueue it again with the same ID")
	// ErrClosed means that the queue takes no jobs for now: see Jobs.Close.
	ErrClosed = errors.New("queue: takes no new jobs for now, try again later")
	// ErrNoJob means that the queue has no such job: it never had, or it is done.
	ErrNoJob = errors.New("queue: no such job is stored")
	// ErrHeld means that another owner holds the queue: it stays as it is. A HeldError says whose it is.
	ErrHeld = errors.New("queue: another owner holds it, who is to release it first")
	// ErrShutdown is the cause of a handler's context that was cancelled because its worker had drained long
	// enough. The job goes back to the head of its queue and no attempt is counted.
	ErrShutdown = errors.New("queue: the worker is shutting down, the job goes back to its queue")
	// ErrEvicting means that Redis may evict queue data under memory pressure, which loses jobs without an error, or, by a
	// volatile policy, what limits and unique locks stand on.
	ErrEvicting = errors.New("queue: Redis evicts keys when its memory is full, set its maxmemory-policy to noeviction or give queues a Redis of their own")
	// ErrNotGated means that asynq fetches jobs in a way that this package does not control, so that limits would not
	// hold, declared ones or those of SetLimits, and jobs would run twice. Use the asynq version that this package requires.
	ErrNotGated = errors.New("queue: asynq's fetch is not controlled by this version of the package, limits would not hold and jobs would run twice, use the asynq version that it requires")
)

// notFound is what asynq's scripts answer when a job is not running any more.
func notFound(err error) bool { return err != nil && strings.Contains(err.Error(), "NOT FOUND") }

// UnconfirmedError is an ErrUnconfirmed with what is needed to settle it.
type UnconfirmedError struct {
	// Queue and ID name the job.
	Queue, ID string
	// Err is what the last try ended with.
	Err error
}

func (e *UnconfirmedError) Error() string {
	return fmt.Sprintf("queue: not known whether job %s was stored in %q, enqueue it again with the same ID: %v", e.ID, e.Queue, e.Err)
}

// Unwrap makes errors.Is find ErrUnconfirmed and the cause.
func (e *UnconfirmedError) Unwrap() []error { return []error{ErrUnconfirmed, e.Err} }
