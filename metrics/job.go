package metrics

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Outcome is how a job ended.
type Outcome int

const (
	// Done means without an error.
	Done Outcome = iota
	// Failed means with an error, or by a panic.
	Failed
	// Requeued means that it was put back undone, for no fault of its own.
	Requeued
)

var outcomes = [...]string{"done", "failed", "requeued"}

// String returns done, failed or requeued, the label's values.
func (o Outcome) String() string { return outcomes[o] }

// maxJobs bounds the label values that names of queues and jobs can make.
const maxJobs = 500

// Job measures jobs: how long they take, how they end, how many run.
type Job struct {
	durations *prometheus.HistogramVec
	active    *prometheus.GaugeVec
	trace     func(context.Context) string

	mu    sync.Mutex                           // for writing known
	known atomic.Pointer[map[jobName]*JobKind] // never changed in place
}

type jobName struct{ queue, kind string }

// JobOptions are NewJob's options.
type JobOptions struct {
	// Trace returns the id of the trace that a job is part of, or "", as HTTPOptions.Trace. Zero means none.
	Trace func(context.Context) string
}

// NewJob makes the job series in reg. A nil reg means counted, not exported. Package queue does it for its workers;
// this is for jobs that come from elsewhere.
func NewJob(reg prometheus.Registerer, opts *JobOptions) (*Job, error) {
	o := JobOptions{}
	if opts != nil {
		o = *opts
	}
	durations, err1 := NewHistogram(reg, JobDuration)
	active, err2 := NewGauge(reg, JobActive)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	j := &Job{durations: durations, active: active, trace: o.Trace}
	j.known.Store(&map[jobName]*JobKind{})
	return j, nil
}

// JobKind measures one kind of job in one queue. It is safe for concurrent use.
type JobKind struct {
	ends   [len(outcomes)]prometheus.Observer
	active prometheus.Gauge
	trace  func(context.Context) string
}

// Of returns the measure of a kind of job in a queue. The names are text from the program, never from its users: those
// after the first 500 are counted under _OTHER.
func (j *Job) Of(queue, kind string) *JobKind {
	name := jobName{queue, kind}
	if of := (*j.known.Load())[name]; of != nil {
		return of
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	known := *j.known.Load()
	if len(known) >= maxJobs {
		name = jobName{other, other}
	}
	if of := known[name]; of != nil {
		return of
	}
	of := &JobKind{active: j.active.WithLabelValues(name.queue, name.kind), trace: j.trace}
	for o := range of.ends {
		of.ends[o] = j.durations.WithLabelValues(name.queue, name.kind, outcomes[o])
	}
	more := make(map[jobName]*JobKind, len(known)+1)
	for k, v := range known {
		more[k] = v
	}
	more[name] = of
	j.known.Store(&more)
	return of
}

// JobRun is one run. The zero value is of no job.
type JobRun struct {
	kind  *JobKind
	begun time.Time
}

// Begin counts a run that begins now. End must follow.
func (k *JobKind) Begin() JobRun {
	k.active.Inc()
	return JobRun{k, time.Now()}
}

// End counts how it ended, and returns how long it took.
func (r JobRun) End(ctx context.Context, o Outcome) time.Duration {
	took := time.Since(r.begun)
	r.kind.active.Dec()
	if r.kind.trace != nil {
		ObserveTraced(r.kind.ends[o], took.Seconds(), r.kind.trace(ctx))
	} else {
		r.kind.ends[o].Observe(took.Seconds())
	}
	return took
}

// Run runs a job and counts it. A panic counts as Failed and goes on.
func (k *JobKind) Run(ctx context.Context, job func(context.Context) error) error {
	run, outcome := k.Begin(), Failed
	defer func() { run.End(ctx, outcome) }() // without recover: the panic keeps its stack
	err := job(ctx)
	if err == nil {
		outcome = Done
	}
	return err
}

// Wrap is Run for a job that is handed on.
func (k *JobKind) Wrap(job func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error { return k.Run(ctx, job) }
}
