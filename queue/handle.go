package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/metrics"
)

// handler runs one kind of job.
type handler struct {
	name        string // which metrics know it by
	consistency Consistency
	run         func(ctx context.Context, task *asynq.Task) error
}

// unknownDelay is how long a job of an unknown kind waits: long enough for a deployment to reach the worker that
// knows it.
const unknownDelay = 15 * time.Second

// Handle registers what runs the jobs of type T. Its context carries a Watermark raised to the positions that the
// enqueuer had, and is cancelled at the job's timeout, or with cause ErrShutdown when the worker has drained long
// enough. An error or a panic, which is a PanicError, is a failed attempt, retried later; that of Later is none. Jobs run
// at least once. Handle panics when T's kind is invalid or taken, when its Consistency lacks what it needs, or when the
// worker runs already.
func Handle[T Job](w *Worker, run func(ctx context.Context, job T) error) {
	var zero T
	kind := zero.Kind()
	switch {
	case validateKind(kind) != nil:
		panic(validateKind(kind).Error())
	case w.handlers[kind].run != nil, w.patterns[kind] != nil:
		panic(fmt.Sprintf("queue: kind %q has a handler already", kind))
	case w.started.Load():
		panic(fmt.Sprintf("queue: Handle for kind %q is called after Run", kind))
	}
	consistency := consistencyOf(zero)
	switch {
	case consistency == ReadAlways && w.jobs.source == nil:
		panic(fmt.Sprintf("queue: kind %q reads ReadAlways, which needs Options.Outbox to be a scaleaware.Source", kind))
	case consistency == ReadDelayed && w.opts.Replicas == nil:
		panic(fmt.Sprintf("queue: kind %q is ReadDelayed, which needs WorkerOptions.Replicas", kind))
	}
	w.handlers[kind] = handler{kind, consistency, func(ctx context.Context, task *asynq.Task) error {
		job, err := open[T](w.jobs.opts.Codec, task.Payload())
		if err != nil {
			return fmt.Errorf("%w: %w", err, asynq.SkipRetry) // another attempt reads the same bytes
		}
		return run(ctx, job)
	}}
}

// process runs what f has fetched.
func (w *Worker) process(f *fetcher) asynq.HandlerFunc {
	return func(ctx context.Context, task *asynq.Task) error {
		makeRoom(0)
		id, _ := asynq.GetTaskID(ctx)
		if f.bypassed() {
			f.fail(fmt.Errorf("%w: job %q of queue %q came past it", ErrNotGated, clip(id), f.queue.Name))
			<-ctx.Done() // asynq shuts down and puts it back, with no attempt counted
			return context.Cause(ctx)
		}
		until, _ := ctx.Deadline()
		t, late := f.begin(id, until)
		if t == nil {
			w.jobs.background("late start", errStray, "queue", f.queue.Name)
			return errStray
		}
		err := w.attend(ctx, f, t, id, late, task)
		if p, ok := err.(*PanicError); ok { // its slot is free by now
			w.noted(ctx, f.queue.Name, id, p)
		}
		return err
	}
}

// attend runs a job that has a slot, which is free when it returns.
func (w *Worker) attend(ctx context.Context, f *fetcher, t *ticket, id string, late bool, task *asynq.Task) error {
	done := false
	defer func() { f.end(id, t, done) }()
	if late {
		w.jobs.background("late start", errLateStart, "queue", f.queue.Name)
		return errLateStart
	}
	if task.Type() == kindUnreadable {
		return fmt.Errorf("%w: %w", errUnreadable, asynq.SkipRetry)
	}
	h, ok := w.handlerOf(task)
	if !ok {
		w.jobs.meters.runs.Of(f.queue.Name, "unknown").Begin().End(ctx, metrics.Requeued)
		return w.unknown(f, t, task)
	}
	tokens, err := tokensIn(task.Headers())
	if err != nil {
		w.jobs.background("headers", err, "queue", f.queue.Name)
	}
	if wait := w.awaits(ctx, f.queue.Name, id, h.consistency, tokens); wait > 0 {
		f.returnJob(t, wait)
		w.jobs.meters.runs.Of(f.queue.Name, h.name).Begin().End(ctx, metrics.Requeued)
		return errAwaits
	}
	ctx, mark := scaleaware.WithWatermark(w.attempt(ctx, id, f.queue.Name, task))
	for _, token := range tokens {
		mark.Raise(token)
	}
	if h.consistency == ReadAlways {
		mark.RaiseFrom(w.jobs.source)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.hard, func() { cancel(context.Cause(w.hard)) })()

	measured, outcome := w.jobs.meters.runs.Of(f.queue.Name, h.name).Begin(), metrics.Failed
	// It counts also an error that panics when it is asked what it is.
	defer func() { w.runs.add(f.queue.Name, outcome.String(), measured.End(ctx, outcome)) }()
	f.use(id, t)
	err = w.protect(ctx, h.run, task, f.queue.Name, id)
	later, isLater := errors.AsType[*LaterError](err)
	switch {
	case isLater:
		f.returnJob(t, later.wait())
		err, outcome = errGivenBack, metrics.Requeued // what it wraps may mean something to asynq
	case err == nil, errors.Is(err, asynq.RevokeTask):
		outcome = metrics.Done
	case errors.Is(err, asynq.ErrHandlerNotFound): // of a mux inside of the handler
		err, outcome = w.unknown(f, t, task), metrics.Requeued
	case w.hard.Err() != nil:
		f.returnJob(t, 0)
		outcome = metrics.Requeued
	}
	done = err == nil
	return err
}

// unknown puts a job back whose kind nothing here knows.
func (w *Worker) unknown(f *fetcher, t *ticket, task *asynq.Task) error {
	w.jobs.log.Warn("queue: no handler for this kind of job, it is tried again later", "queue", f.queue.Name, "kind", clip(task.Type()))
	f.returnJob(t, unknownDelay)
	return fmt.Errorf("queue: this worker has no handler for kind %q", clip(task.Type()))
}

var errAwaits = errors.New("queue: the job waits for a replica to have what it is to read")
