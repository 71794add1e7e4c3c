package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// WorkerOptions configures NewWorker. Every field is optional.
type WorkerOptions struct {
	// Queues are the queues to work on, all of them declared. Zero means every declared queue.
	Queues []string
	// Concurrency is how many jobs run at once over all queues. Zero means 10.
	Concurrency int
	// MaxConcurrency is the most that Resize may ask for. Zero means four times Concurrency.
	MaxConcurrency int
	// DrainTimeout is how long Run waits for running jobs when its context has ended, before it cancels their
	// contexts with ErrShutdown. Zero means 20s.
	DrainTimeout time.Duration
	// Grace is how long cancelled jobs may take to return before they are put back while still running.
	// Zero means 2s.
	Grace time.Duration
	// PollInterval is the longest pause between looks into an empty queue. Zero means 25ms.
	PollInterval time.Duration
	// StallTimeout is how long a running job may go without its worker's heartbeat, which comes every 5s, before it
	// is given to another worker. Zero means 13s; 11s is the least.
	StallTimeout time.Duration
	// RetryDelay says how long a job waits after its n-th failed attempt, n from 0. Zero means asynq's exponential
	// delay, 15s and more.
	RetryDelay func(n int, err error) time.Duration
	// Replicas tells whether a replica has what a job of ReadDelayed is to read. Zero means that there is no such kind of job.
	Replicas Replicas
	// OnDead is told of each job of this worker that has used up its attempts, after it was stored among the failed ones,
	// where it stays. It must return within 10s. Zero means that nobody is told.
	OnDead func(ctx context.Context, job DeadJob)
}

func (o *WorkerOptions) withDefaults(j *Jobs) (WorkerOptions, []Queue, error) {
	var opts WorkerOptions
	if o != nil {
		opts = *o
	}
	var errs []error
	if opts.Concurrency == 0 {
		opts.Concurrency = 10
	}
	if opts.MaxConcurrency == 0 {
		opts.MaxConcurrency = 4 * opts.Concurrency
	}
	const most = 100_000
	if opts.Concurrency < 1 || opts.MaxConcurrency < opts.Concurrency || opts.MaxConcurrency > most {
		errs = append(errs, fmt.Errorf("queue: WorkerOptions.Concurrency is %d and MaxConcurrency %d, want 1 <= Concurrency <= MaxConcurrency <= %d", opts.Concurrency, opts.MaxConcurrency, most))
	}
	duration := func(name string, d *time.Duration, zero, least time.Duration) {
		if *d == 0 {
			*d = zero
		}
		if *d < least {
			errs = append(errs, fmt.Errorf("queue: WorkerOptions.%s is %v, want at least %v", name, *d, least))
		}
	}
	duration("DrainTimeout", &opts.DrainTimeout, 20*time.Second, time.Millisecond)
	duration("Grace", &opts.Grace, 2*time.Second, time.Millisecond)
	duration("PollInterval", &opts.PollInterval, 25*time.Millisecond, time.Millisecond)
	duration("StallTimeout", &opts.StallTimeout, 13*time.Second, 11*time.Second)
	queues := j.queues
	if len(opts.Queues) > 0 {
		queues = nil
		for _, name := range opts.Queues {
			q, ok := j.declared(name)
			if !ok {
				errs = append(errs, fmt.Errorf("queue: WorkerOptions.Queues: %w: %q", ErrUnknownQueue, clip(name)))
			}
			queues = append(queues, q)
		}
	}
	return opts, queues, errors.Join(errs...)
}

// Worker runs jobs. Register handlers with Handle or HandleTask, then call Run.
type Worker struct {
	jobs     *Jobs
	opts     WorkerOptions
	queues   []Queue
	slots    *slots
	runs     *runLog
	handlers map[string]handler       // by kind
	patterns map[string]asynq.Handler // by what kinds begin with
	started  atomic.Bool
	hard     context.Context // ends, with cause, when running jobs must stop
	stopHard context.CancelCauseFunc

	// expose is the client that asynq is given for a fetcher, onStart and onUse see starts; tests change them.
	expose         func(*fetcher) redis.UniversalClient
	onStart, onUse func(queue, id string, stamp int64)
}

// NewWorker makes a worker for declared queues. It starts nothing.
func (j *Jobs) NewWorker(o *WorkerOptions) (*Worker, error) {
	opts, queues, err := o.withDefaults(j)
	if err != nil {
		return nil, err
	}
	w := &Worker{
		jobs: j, opts: opts, queues: queues, slots: newSlots(opts.Concurrency, queues), runs: newRunLog(),
		handlers: make(map[string]handler), patterns: make(map[string]asynq.Handler),
		expose: func(f *fetcher) redis.UniversalClient { return f },
	}
	w.hard, w.stopHard = context.WithCancelCause(context.Background())
	return w, nil
}

// Resize changes how many jobs run at once, from 0 to MaxConcurrency. More takes effect at once, fewer as running
// jobs end. Isolated queues keep the slots of their own, which ScaleTo changes, but start nothing while it is 0.
func (w *Worker) Resize(n int) error {
	if n < 0 || n > w.opts.MaxConcurrency {
		return fmt.Errorf("queue: Resize to %d, want 0 to WorkerOptions.MaxConcurrency, which is %d", n, w.opts.MaxConcurrency)
	}
	w.slots.resize(n)
	w.jobs.meters.slots.WithLabelValues().Set(float64(n))
	return nil
}

// Busy returns how many jobs run in this worker now.
func (w *Worker) Busy() int { return w.slots.busy() }

// Writing returns how many of them may write: those of queues that are not ReadsOnly. Once Options.Gate is closed and
// Writing has returned 0, none starts until it opens.
func (w *Worker) Writing() int {
	return w.slots.busyOf(func(i int) bool { return !w.queues[i].ReadsOnly })
}

// Run works until ctx ends, then drains: it fetches no more, waits DrainTimeout for running jobs, cancels their
// contexts with ErrShutdown, and puts back what is not done, with no attempt counted. It returns nil then. While Redis
// cannot be reached it waits for it. It returns ErrEvicting or ErrNotGated when jobs could be lost, limits broken or ends not recorded.
// A Worker runs once.
func (w *Worker) Run(ctx context.Context) error {
	if w.started.Swap(true) {
		return errors.New("queue: Worker.Run is called a second time, make a new worker")
	}
	if len(w.handlers)+len(w.patterns) == 0 {
		return errors.New("queue: the worker has no handler, call Handle or HandleTask before Run")
	}
	if err := w.awaitRedis(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	w.jobs.meters.slots.WithLabelValues().Set(float64(w.slots.size()))
	fatal, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	fetchers := make([]*fetcher, len(w.queues))
	for i, q := range w.queues {
		f := newFetcher(w.jobs, q, i, w.slots, w.most(q)+unended, w.opts.PollInterval, fail)
		f.onStart, f.onUse, f.onDead = w.onStart, w.onUse, w.opts.OnDead
		fetchers[i] = f
	}
	own, stopOwn := context.WithCancel(context.Background()) // outlives ctx: draining jobs need it
	defer stopOwn()
	var tasks sync.WaitGroup
	for _, f := range fetchers {
		r := newReaper(f, w.opts.StallTimeout)
		r.reapExpired(own) // before asynq's recoverer, which counts an attempt
		tasks.Go(func() { r.run(own) })
	}
	tasks.Go(func() { w.runs.flushLoop(own, w.jobs) })
	servers := make([]*asynq.Server, len(fetchers))
	for i, f := range fetchers {
		servers[i] = w.newServer(f)
		if err := servers[i].Start(w.process(f)); err != nil {
			fail(fmt.Errorf("queue: start asynq for queue %q: %w", f.queue.Name, err))
		}
	}
	tasks.Go(func() { w.canary(fatal, fetchers, fail) })
	tasks.Go(func() { w.announce(fatal) })

	<-fatal.Done()
	w.drain(fetchers, servers)
	stopOwn()
	tasks.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(fatal)
}

// most is how many jobs of a queue asynq may have at once.
func (w *Worker) most(q Queue) int {
	return max(q.Isolated, w.opts.MaxConcurrency)
}

// awaitRedis returns once Redis has said that it keeps what it is given, and has the limits.
func (w *Worker) awaitRedis(ctx context.Context) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		check, cancel := context.WithTimeout(ctx, popTimeout)
		err := checkPolicy(check, w.jobs.rdb)
		for _, q := range w.queues {
			if err == nil {
				err = w.jobs.seed(check, q)
			}
		}
		cancel()
		if err == nil || errors.Is(err, ErrEvicting) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		w.jobs.background("start", err)
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// canary refuses a worker whose queues asynq fetches from past us.
func (w *Worker) canary(ctx context.Context, fetchers []*fetcher, fail func(error)) {
	const within = 5 * time.Second
	if !sleep(ctx, within) {
		return
	}
	for _, f := range fetchers {
		if f.bypassed() {
			fail(fmt.Errorf("%w: no fetch of queue %q was seen within %v", ErrNotGated, f.queue.Name, within))
		}
	}
}

// unended is how many jobs more than it has slots a worker may have from each queue: their handlers have returned, so that they use
// no slot, and their ends are on the way to Redis.
const unended = 16
