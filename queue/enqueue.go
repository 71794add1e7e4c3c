package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/scaleaware/scaleaware"
)

// Enqueue stores job. On success Redis has confirmed it. The positions that the context's Watermark holds travel
// with it, so that its handler's reads see what this caller has written. Errors: ErrExists, ErrUnconfirmed, ErrClosed, the
// gate's refusal, or a description of what is wrong with the job.
func (j *Jobs) Enqueue(ctx context.Context, job Job, opts ...Option) (Info, error) {
	infos, err := j.EnqueueMany(ctx, []Job{job}, opts...)
	return infos[0], err
}

// EnqueueMany stores jobs, hundreds with one command. It returns an Info for each, whose Err is what Enqueue would have
// returned, and the errors joined; jobs without one are stored. The options are for all of them; an ID is refused.
func (j *Jobs) EnqueueMany(ctx context.Context, jobs []Job, opts ...Option) ([]Info, error) {
	tokens, err := scaleaware.WatermarkFrom(ctx).Written(ctx)
	if err != nil {
		j.background("position", err, "jobs", len(jobs)) // the jobs matter more than how fresh their reads are
	}
	infos, sealed := make([]Info, len(jobs)), make([]*envelope, len(jobs))
	for i, job := range jobs {
		e, q, err := j.prepare(ctx, job, opts)
		infos[i] = Info{Queue: q.Name, Err: err}
		if err == nil && len(jobs) > 1 && hasID(opts) {
			infos[i].Err = errors.New("queue: EnqueueMany of several jobs with one ID, leave it out")
		}
		if infos[i].Err == nil {
			e.raise(tokens)
			infos[i].ID, sealed[i] = e.ID, e
		}
	}
	j.store(ctx, sealed, infos, tries)
	for i, info := range infos {
		if sealed[i] != nil {
			j.meters.enqueued.WithLabelValues(info.Queue, outcome(info.Err)).Inc()
		}
	}
	return infos, joined(infos)
}

func hasID(opts []Option) bool {
	var s settings
	for _, opt := range opts {
		opt(&s)
	}
	return s.ID != ""
}

// joined is errors.Join of the infos' errors, but the error itself when there is one.
func joined(infos []Info) error {
	var errs []error
	for _, info := range infos {
		if info.Err != nil {
			errs = append(errs, info.Err)
		}
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// prepare seals job for a declared queue, with an ID, and asks the gate.
func (j *Jobs) prepare(ctx context.Context, job Job, opts []Option) (*envelope, Queue, error) {
	e, err := seal(j.opts.Codec, job, opts)
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
		e.ID, e.drawn = id.String(), true
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
