package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hibiken/asynq"
)

// abortAfter is asynq's own shutdown timeout. Our drain has waited already; what is left is time for asynq to record
// what has just ended.
const abortAfter = time.Second

// forwardEvery is how often jobs are looked for whose time has come.
const forwardEvery = 250 * time.Millisecond

// newServer makes the asynq server of one queue. A queue has a server of its own because asynq fetches with one
// goroutine a server: a limited queue would hold up the others.
func (w *Worker) newServer(f *fetcher) *asynq.Server {
	cfg := asynq.Config{
		Concurrency:              f.most,
		Queues:                   map[string]int{f.queue.Name: 1},
		TaskCheckInterval:        time.Millisecond, // the waiting is done in fetch
		DelayedTaskCheckInterval: forwardEvery,
		ShutdownTimeout:          abortAfter,
		HealthCheckInterval:      time.Minute,
		Logger:                   asynqLogger{w.jobs.log.With("queue", f.queue.Name)},
		LogLevel:                 asynq.WarnLevel,
		BaseContext:              spacious,
	}
	delay := asynq.DefaultRetryDelayFunc
	if own := w.opts.RetryDelay; own != nil {
		delay = func(n int, err error, _ *asynq.Task) time.Duration { return own(n, err) }
	}
	cfg.RetryDelayFunc = func(int, error, *asynq.Task) time.Duration { return 0 } // noteRetry has asked, and once is enough
	cfg.ErrorHandler = asynq.ErrorHandlerFunc(func(ctx context.Context, task *asynq.Task, err error) { f.noteRetry(ctx, task, err, delay) })
	return asynq.NewServerFromRedisClient(w.expose(f), cfg)
}

// noteRetry notes when a job is to be tried again, which asynq stores to the second, rounded down.
func (f *fetcher) noteRetry(ctx context.Context, task *asynq.Task, err error, delay asynq.RetryDelayFunc) {
	id, _ := asynq.GetTaskID(ctx)
	n, _ := asynq.GetRetryCount(ctx)
	most, _ := asynq.GetMaxRetry(ctx)
	if n >= most || errors.Is(err, asynq.SkipRetry) || errors.Is(err, asynq.RevokeTask) {
		return
	}
	f.mu.Lock()
	t := f.tickets[id]
	wanted := t != nil && t.back == nil
	f.mu.Unlock()
	if !wanted {
		return
	}
	again := time.Now().Add(delay(n, err, task))
	f.mu.Lock()
	t.again = again
	f.mu.Unlock()
}

// drain ends the servers without losing a job.
func (w *Worker) drain(fetchers []*fetcher, servers []*asynq.Server) {
	for _, f := range fetchers {
		close(f.closed)
	}
	each(servers, (*asynq.Server).Stop)
	for _, f := range fetchers {
		f.unready() // its fetching goroutine has ended
	}
	if !w.idleWithin(w.opts.DrainTimeout) {
		w.jobs.log.Warn("queue: jobs still run after the drain timeout, their contexts are cancelled", "jobs", w.Busy())
	}
	w.stopHard(ErrShutdown)
	if !w.idleWithin(w.opts.Grace) {
		w.jobs.log.Warn("queue: jobs ignore their cancelled context and are put back while they run on", "jobs", w.Busy())
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		each(servers, (*asynq.Server).Shutdown)
	}()
	timer := time.NewTimer(45 * time.Second) // longer than a lease, within which every recording ends
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		w.jobs.background("drain", fmt.Errorf("queue: asynq has not shut down within 45s, its jobs come back by their leases"))
	}
}

func each(servers []*asynq.Server, do func(*asynq.Server)) {
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() { do(s) })
	}
	wg.Wait()
}

// idleWithin waits until no handler runs.
func (w *Worker) idleWithin(d time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	for w.Busy() > 0 {
		if !sleep(ctx, 5*time.Millisecond) {
			return w.Busy() == 0
		}
	}
	return true
}

// asynqLogger hands asynq's lines to slog. Its Fatal must not end the process.
type asynqLogger struct{ log *slog.Logger }

func (l asynqLogger) Debug(args ...any) { l.log.Debug("asynq: " + fmt.Sprint(args...)) }
func (l asynqLogger) Info(args ...any)  { l.log.Info("asynq: " + fmt.Sprint(args...)) }
func (l asynqLogger) Warn(args ...any)  { l.log.Warn("asynq: " + fmt.Sprint(args...)) }
func (l asynqLogger) Error(args ...any) { l.log.Error("asynq: " + fmt.Sprint(args...)) }
func (l asynqLogger) Fatal(args ...any) { l.log.Error("asynq: " + fmt.Sprint(args...)) }
