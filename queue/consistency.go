package queue

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// Consistency says what the reads of a job's handler see.
type Consistency int

const (
	// ReadSticky is everything that whoever enqueued the job had written: from a replica that has it, else from the primary.
	ReadSticky Consistency = iota
	// ReadDelayed is the same, and the job would rather wait than read from the primary: it is put back, with no attempt
	// counted, until a replica has it, for some 20 seconds at most. It needs WorkerOptions.Replicas.
	ReadDelayed
	// ReadAlways is everything that anybody had committed when the handler started. It needs Options.Outbox to be a
	// scaleaware.Source, as dbsplit.DB is.
	ReadAlways
)

// Consistent is implemented by jobs that are not ReadSticky. The answer must not depend on the value.
type Consistent interface {
	Consistency() Consistency
}

// Replicas knows whether a replica has what was written at positions. It must answer from memory. dbsplit.DB is one.
type Replicas interface {
	Caught(tokens scaleaware.Tokens) bool
}

func consistencyOf(job Job) Consistency {
	if c, ok := job.(Consistent); ok {
		return c.Consistency()
	}
	return ReadSticky
}

const (
	// replayPause is how long a job waits for a replica at first: replay takes milliseconds.
	replayPause = 100 * time.Millisecond
	// mostPauses is how often it does; each pause is longer than the last.
	mostPauses = 20
)

// pauseScript counts the times that a job was put back to wait for a replica. KEYS: task key
var pauseScript = redis.NewScript(`return redis.call("HINCRBY", KEYS[1], "pauses", 1)`)

// awaits returns how long a job must wait before a replica has what it is to read; zero to run it.
func (w *Worker) awaits(ctx context.Context, queue, id string, c Consistency, tokens scaleaware.Tokens) time.Duration {
	if c != ReadDelayed || len(tokens) == 0 || w.opts.Replicas == nil || w.opts.Replicas.Caught(tokens) {
		return 0
	}
	n, err := pauseScript.Run(ctx, w.jobs.rdb, []string{taskPrefix(queue) + id}).Int()
	if err != nil || n > mostPauses {
		return 0 // the primary will do
	}
	return time.Duration(n) * replayPause
}
