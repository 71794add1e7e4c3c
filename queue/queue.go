package queue

import (
	"errors"
	"fmt"
)

// Queue declares one queue.
type Queue struct {
	// Name is 1 to 64 letters, digits, dots, dashes and underscores. It is required.
	Name string
	// Rate limits starts over the whole fleet. Zero means no limit.
	Rate Rate
	// Smooth spreads the starts that Rate allows over its window: no more than a twentieth of Rate.Max, and one, come at once. Zero
	// means that all of a window's starts may come at its beginning.
	Smooth bool
	// Concurrency is how many jobs of the queue run at once in the whole fleet. A job whose time is up, or whose worker was
	// taken for dead, counts no more, also while its handler runs on. Zero means as many as the workers' slots.
	Concurrency int
	// Isolated gives the queue so many slots of its own in each worker, beside those that WorkerOptions.Concurrency
	// shares out, and no others: it neither takes from other queues nor waits for them. Zero means that it shares.
	Isolated int
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
	if q.Isolated < 0 || q.Isolated > 10_000 {
		errs = append(errs, fmt.Errorf("queue: Isolated of queue %q is %d, want 0 to share slots, or up to 10000", clip(q.Name), q.Isolated))
	}
	return errors.Join(append(errs, q.limits().validate(clip(q.Name)))...)
}

func (q Queue) limits() Limits {
	return Limits{Rate: q.Rate, Smooth: q.Smooth, Concurrency: q.Concurrency}
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
