package queue

import (
	"errors"
	"fmt"
	"time"
)

// Rate is how many jobs may start in any window of a given length, over the whole fleet, retries included.
type Rate struct {
	// Max is the number of starts, 1 to 100000. Zero means no limit.
	Max int
	// Per is the window's length, 10ms to 24h. Zero means no limit, and is a mistake when Max is set.
	Per time.Duration
}

// Limited reports whether there is a limit at all.
func (r Rate) Limited() bool { return r.Max > 0 }

// guard widens the window so that the limit holds where handlers run too: a start is stamped by Redis and reaches
// its handler a scheduling delay later. Half a percent of the window, at most 5ms.
func (r Rate) guard() time.Duration { return min(5*time.Millisecond, r.Per/200) }

func (r Rate) validate(queue string) error {
	const most = 100_000 // starts remembered in Redis, about 1.7 MB
	switch {
	case r == Rate{}:
		return nil
	case r.Max < 1 || r.Max > most:
		return fmt.Errorf("queue: Rate.Max of queue %q is %d, want 1 to %d starts", queue, r.Max, most)
	case r.Per < 10*time.Millisecond || r.Per > 24*time.Hour:
		return fmt.Errorf("queue: Rate.Per of queue %q is %v, want 10ms to 24h", queue, r.Per)
	default:
		return nil
	}
}

// Queue declares one queue.
type Queue struct {
	// Name is 1 to 64 letters, digits, dots, dashes and underscores. It is required.
	Name string
	// Rate limits starts over the whole fleet. Zero means no limit.
	Rate Rate
	// Weight is the queue's claim on a worker's slots, 1 to 100, against the other queues' weights: half of its share
	// is kept for it even when other queues have a backlog. Zero means 1.
	Weight int
	// ReadsOnly says that jobs of this queue write nothing, so they are accepted and run in read-only mode.
	// Zero means that they write: Options.Gate refuses or parks them.
	ReadsOnly bool
}

func (q Queue) validate() error {
	var errs []error
	if !validName(q.Name) {
		errs = append(errs, fmt.Errorf("queue: Name is %q, want 1 to 64 letters, digits, dots, dashes and underscores", clip(q.Name)))
	}
	if q.Weight < 0 || q.Weight > 100 {
		errs = append(errs, fmt.Errorf("queue: Weight of queue %q is %d, want 1 to 100", clip(q.Name), q.Weight))
	}
	return errors.Join(append(errs, q.Rate.validate(clip(q.Name)))...)
}

// validName refuses braces above all: Redis Cluster would read them as another hash tag and spread one queue's keys
// over several slots (hibiken/asynq#480).
func validName(name string) bool {
	if name == "" || len(name) > 64 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// clip keeps hostile input out of logs and errors beyond what identifies it.
func clip(s string) string {
	const limit = 64
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}

func validateQueues(queues []Queue) error {
	var errs []error
	if len(queues) == 0 {
		errs = append(errs, errors.New("queue: no queue is declared, give New at least one"))
	}
	seen := make(map[string]bool, len(queues))
	for _, q := range queues {
		errs = append(errs, q.validate())
		if seen[q.Name] {
			errs = append(errs, fmt.Errorf("queue: queue %q is declared twice", clip(q.Name)))
		}
		seen[q.Name] = true
	}
	return errors.Join(errs...)
}
