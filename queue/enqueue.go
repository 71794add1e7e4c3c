package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"

	"github.com/scaleaware/scaleaware"
)

// tries bounds how often a doubtful enqueue is repeated before it is reported as unconfirmed.
const tries = 4

// Enqueue stores job. On success Redis has confirmed it. The positions that the context's Watermark holds travel
// with it, so that its handler's reads see what this caller has written. Errors: ErrExists, ErrUnconfirmed, the
// gate's refusal, or a description of what is wrong with the job.
func (j *Jobs) Enqueue(ctx context.Context, job Job, opts ...Option) (Info, error) {
	e, q, err := j.prepare(ctx, job, opts)
	if err != nil {
		return Info{Queue: q.Name}, err
	}
	tokens, err := scaleaware.WatermarkFrom(ctx).Written(ctx)
	if err != nil {
		j.background("position", err, "job", e.Kind) // the job matters more than how fresh its reads are
	}
	e.raise(tokens)
	info, err := j.store(ctx, e, tries)
	j.meters.enqueued.WithLabelValues(q.Name, outcome(err)).Inc()
	return info, err
}

// prepare seals job for a declared queue, with an ID, and asks the gate.
func (j *Jobs) prepare(ctx context.Context, job Job, opts []Option) (*envelope, Queue, error) {
	e, err := seal(job, opts)
	if err != nil {
		return nil, Queue{}, err
	}
	if e.Queue == "" {
		if len(j.queues) != 1 {
			return nil, Queue{}, fmt.Errorf("queue: job %q names no queue and %d are declared, give it a Queue method or use On", e.Kind, len(j.queues))
		}
		e.Queue = j.queues[0].Name
	}
	q, ok := j.declared(e.Queue)
	if !ok {
		return nil, Queue{}, fmt.Errorf("%w: %q, named by job %q", ErrUnknownQueue, clip(e.Queue), e.Kind)
	}
	if err := j.allow(ctx, q); err != nil {
		j.meters.enqueued.WithLabelValues(q.Name, "refused").Inc()
		return nil, q, fmt.Errorf("queue: enqueue job %q: %w", e.Kind, err)
	}
	if e.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, q, fmt.Errorf("queue: make an ID: %w", err)
		}
		e.ID = id.String()
	}
	return e, q, nil
}

func outcome(err error) string {
	switch {
	case err == nil:
		return "stored"
	case errors.Is(err, ErrExists):
		return "exists"
	case errors.Is(err, ErrUnconfirmed):
		return "unconfirmed"
	default:
		return "failed"
	}
}

// store hands an envelope to asynq until Redis has answered for certain. A lost answer is asked for again with the
// same ID, and a conflict with our own copy is the confirmation.
func (j *Jobs) store(ctx context.Context, e *envelope, tries int) (Info, error) {
	e.header(headerAttempt, uuid.NewString())
	info := Info{ID: e.ID, Queue: e.Queue}
	task := asynq.NewTaskWithHeaders(e.Kind, e.Payload, e.Headers)
	options := e.asynqOptions()
	pause := 50 * time.Millisecond
	for try := 1; ; try++ {
		ctx, raw := withErrorBox(ctx)
		_, err := j.client.EnqueueContext(ctx, task, options...)
		switch {
		case err == nil:
			return info, nil
		case errors.Is(err, asynq.ErrTaskIDConflict), errors.Is(err, asynq.ErrDuplicateTask):
			mine, lookErr := j.isOurs(ctx, e)
			if mine {
				return info, nil
			}
			if lookErr == nil {
				return info, fmt.Errorf("%w: %s in queue %q", ErrExists, e.ID, e.Queue)
			}
			err = lookErr
		case *raw != nil && answered(*raw) && !passing(*raw):
			return info, fmt.Errorf("queue: Redis refuses job %s for queue %q: %w", e.ID, e.Queue, *raw)
		case *raw != nil:
			err = *raw
		}
		if try == tries || !sleep(ctx, pause) {
			return info, &UnconfirmedError{Queue: e.Queue, ID: e.ID, Err: err}
		}
		pause *= 2
	}
}

func (e *envelope) asynqOptions() []asynq.Option {
	options := []asynq.Option{asynq.Queue(e.Queue), asynq.TaskID(e.ID)}
	if !e.At.IsZero() {
		options = append(options, asynq.ProcessAt(e.At))
	}
	if e.MaxRetry != nil {
		options = append(options, asynq.MaxRetry(*e.MaxRetry))
	}
	if e.Timeout > 0 {
		options = append(options, asynq.Timeout(e.Timeout))
	}
	if e.Retention > 0 {
		options = append(options, asynq.Retention(e.Retention))
	}
	if e.Unique > 0 {
		options = append(options, asynq.Unique(e.Unique))
	}
	return options
}

// isOurs reports whether the stored job with e's ID was put there by this very call. go-redis repeats timed-out
// scripts itself, so even the first conflict may be with our own copy.
func (j *Jobs) isOurs(ctx context.Context, e *envelope) (bool, error) {
	msg, err := j.rdb.HGet(ctx, taskPrefix(e.Queue)+e.ID, "msg").Result()
	if err != nil {
		if isNil(err) {
			return false, nil
		}
		return false, fmt.Errorf("queue: look whether job %s is stored: %w", e.ID, err)
	}
	return containsAttempt(msg, e.Headers[headerAttempt]), nil
}

// sleep returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
