package queue

import (
	"fmt"
	"time"
)

// Job is what an application defines: a value that encoding/json, or Options.Codec, can write and read back. Kind names its
// type for ever, as jobs outlive deployments; it must not depend on the value.
type Job interface {
	Kind() string
}

// Queued is implemented by jobs that know their queue. Without it, and without On, a job goes to the only declared
// queue, and is refused when there are several.
type Queued interface {
	Queue() string
}

// Option changes how one job is enqueued.
type Option func(*settings)

// settings is what the options say; JSON because the outbox stores it.
type settings struct {
	Queue     string            `json:"queue,omitempty"`
	ID        string            `json:"id,omitempty"`
	At        time.Time         `json:"at,omitzero"`
	MaxRetry  *int              `json:"max_retry,omitempty"`
	Timeout   time.Duration     `json:"timeout,omitempty"`
	Retention time.Duration     `json:"retention,omitempty"`
	Unique    time.Duration     `json:"unique,omitempty"`
	Confirm   int               `json:"-"` // the relay has its own way
	Headers   map[string]string `json:"headers,omitempty"`
}

// On names the queue, over what the job says.
func On(queue string) Option { return func(s *settings) { s.Queue = queue } }

// ID gives the job an identity: while a job with this ID is stored in the queue, another is refused with ErrExists.
// Without it the job gets a random one.
func ID(id string) Option { return func(s *settings) { s.ID = id } }

// In delays the job, from now on by the clock of the host that calls.
func In(d time.Duration) Option { return func(s *settings) { s.At = time.Now().Add(d) } }

// At delays the job until t, by Redis's clock.
func At(t time.Time) Option { return func(s *settings) { s.At = t } }

// MaxRetry is how often a failed job is tried again before it counts as failed. The default is asynq's, 25.
func MaxRetry(n int) Option { return func(s *settings) { s.MaxRetry = &n } }

// Timeout bounds one attempt. The default is asynq's, 30 minutes.
func Timeout(d time.Duration) Option { return func(s *settings) { s.Timeout = d } }

// Retention keeps the finished job, and so its ID, for a while. The default is not at all: a job whose Enqueue has lost its
// answer may then run twice, if it is done before that asks again.
func Retention(d time.Duration) Option { return func(s *settings) { s.Retention = d } }

// Unique refuses, with ErrExists, a job of the same kind and payload in the same queue until this one is done, or
// ttl has passed. One that has failed is not done: it can be retried.
func Unique(ttl time.Duration) Option { return func(s *settings) { s.Unique = ttl } }

// Confirm makes Enqueue wait until so many replicas have the job, so that the death of its master loses nothing that was
// confirmed. When they do not say so within half a second it is ErrUnconfirmed: the job may run. EnqueueTx needs no Confirm.
func Confirm(replicas int) Option { return func(s *settings) { s.Confirm = replicas } }

// Header adds a header; names that begin with "scaleaware-" are taken.
func Header(name, value string) Option {
	return func(s *settings) {
		if s.Headers == nil {
			s.Headers = make(map[string]string)
		}
		s.Headers[name] = value
	}
}

// Info says where a job went.
type Info struct {
	// ID and Queue name the job.
	ID, Queue string
	// Err is why EnqueueMany did not store it, or nil.
	Err error
}

func (s *settings) validate() error {
	switch {
	case s.ID != "" && !validID(s.ID):
		return fmt.Errorf("queue: ID is %q, want 1 to 128 printable characters without space and braces", clip(s.ID))
	case s.MaxRetry != nil && (*s.MaxRetry < 0 || *s.MaxRetry > 1000):
		return fmt.Errorf("queue: MaxRetry is %d, want 0 to 1000", *s.MaxRetry)
	case s.Confirm < 0 || s.Confirm > 5:
		return fmt.Errorf("queue: Confirm by %d replicas, want 0 to 5", s.Confirm)
	case s.Timeout < 0, s.Retention < 0, s.Unique < 0:
		return fmt.Errorf("queue: Timeout, Retention and Unique are %v, %v and %v, want none below zero", s.Timeout, s.Retention, s.Unique)
	case s.Timeout > 0 && s.Timeout < time.Second, s.Retention > 0 && s.Retention < time.Second, s.Unique > 0 && s.Unique < time.Second:
		return fmt.Errorf("queue: Timeout, Retention and Unique are %v, %v and %v, want whole seconds, which is what asynq keeps", s.Timeout, s.Retention, s.Unique)
	default:
		return validateHeaders(s.Headers)
	}
}

func validID(id string) bool {
	if len(id) > 128 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' || c == '{' || c == '}' {
			return false
		}
	}
	return true
}
