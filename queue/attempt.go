package queue

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// Attempt is one run of a job, as its handler sees it. AttemptFrom returns it.
type Attempt struct {
	// Queue, ID and Kind name the job.
	Queue, ID, Kind string
	// Number counts from 1; MaxRetry more attempts than one are made at most.
	Number, MaxRetry int
	// Headers are the job's, the package's own ones included.
	Headers map[string]string

	jobs *Jobs
}

type attemptKey struct{}

// AttemptFrom returns the attempt that a handler's context belongs to, or nil.
func AttemptFrom(ctx context.Context) *Attempt {
	a, _ := ctx.Value(attemptKey{}).(*Attempt)
	return a
}

func (w *Worker) attempt(ctx context.Context, id, queue string, task *asynq.Task) context.Context {
	retried, _ := asynq.GetRetryCount(ctx)
	most, _ := asynq.GetMaxRetry(ctx)
	return context.WithValue(ctx, attemptKey{}, &Attempt{
		Queue: queue, ID: id, Kind: task.Type(), Number: retried + 1, MaxRetry: most, Headers: task.Headers(), jobs: w.jobs,
	})
}

// noteScript sets a field of a job that is still there. KEYS: task key; ARGV: field, value
var noteScript = redis.NewScript(`
if redis.call("EXISTS", KEYS[1]) == 0 then
	return 0
end
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
return 1`)

const maxNote = 64 << 10

// SetProgress stores how far the job is, as JSON of up to 64 KiB, where Explain shows it while the job is stored. It may
// be called as often as is useful to somebody who looks; each call is one command.
func (a *Attempt) SetProgress(ctx context.Context, progress any) error {
	return a.note(ctx, "progress", progress)
}

// SetResult stores what the job has come to, as JSON of up to 64 KiB, where Explain and asynq's tools show it. A job without
// Retention takes it along when it is done.
func (a *Attempt) SetResult(ctx context.Context, result any) error {
	return a.note(ctx, "result", result)
}

func (a *Attempt) note(ctx context.Context, field string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("queue: encode the %s of job %s as JSON: %w", field, a.ID, err)
	}
	if len(text) > maxNote {
		return fmt.Errorf("queue: the %s of job %s has %d bytes, want at most %d: store a reference instead", field, a.ID, len(text), maxNote)
	}
	if err := noteScript.Run(ctx, a.jobs.rdb, []string{taskPrefix(a.Queue) + a.ID}, field, text).Err(); err != nil {
		return fmt.Errorf("queue: store the %s of job %s: %w", field, a.ID, err)
	}
	return nil
}
