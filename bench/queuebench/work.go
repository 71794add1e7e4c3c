package queuebench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/queue"
)

const workNote = "Jobs that do nothing are stored, then a worker is started, and the time is taken until the last one is done and nothing is running. One process works for all. " +
	"Contenders take turns, on a fresh queue each; the time is of one job, ratios are of one round. River: 2000 workers, a fetch cooldown of 5 ms, which were its fastest here."

// worker starts working off a queue and returns how many jobs are done, and what ends it.
type worker struct {
	name  string
	fill  func(ctx context.Context, n int) error
	start func(ctx context.Context) (done func() int64, stop func() error, err error)
}

// work compares how fast jobs are worked off.
func (l *lab) work(ctx context.Context) ([]report.Row, error) {
	if err := l.redis(ctx); err != nil {
		return nil, err
	}
	if err := l.postgres(ctx); err != nil {
		return nil, err
	}
	n, rounds := 60_000, 7
	if l.quick {
		n, rounds = 5_000, 2
	}
	contenders := []worker{l.bare(50), l.ours("queue, 50 slots", 50, 0), l.ours("queue, 50 slots, a limit that is never reached", 50, 100_000), l.ours("queue, 200 slots", 200, 0), l.river()}
	results, err := inTurns(ctx, contenders, n, rounds)
	if err != nil {
		return nil, err
	}
	bare, plain, limited, wide, riv := results[0], results[1], results[2], results[3], results[4]
	row := func(what, goal string, ours, peer pairs.Result, limit float64) report.Row {
		ratio := pairs.Ratio(ours, peer)
		out := report.Row{What: what, Goal: goal, Peer: rate(peer), Ours: rate(ours), Ratio: report.Ratio(ratio)}
		if limit > 0 {
			out.Met = report.MedianAtMost(ratio, limit)
		}
		return out
	}
	return []report.Row{
		row("50 slots, against asynq with 50", "≥ 3 × as fast: ≤ 0.333", plain, bare, 1.0/3),
		row("the same with a rate limit that is never reached", "", limited, bare, 0),
		row("200 slots, against asynq with 50", "", wide, bare, 0),
		row("200 slots, against River", "≥ 1.2 × as fast: ≤ 0.833", wide, riv, 1/1.2),
	}, nil
}

// inTurns lets each contender work off n jobs, round by round, and returns the time of one job.
func inTurns(ctx context.Context, contenders []worker, n, rounds int) ([]pairs.Result, error) {
	results := make([]pairs.Result, len(contenders))
	for i, c := range contenders {
		results[i] = pairs.Result{Name: c.name, Allocs: -1}
	}
	for round := range rounds {
		for turn := range contenders {
			i := (round + turn) % len(contenders)
			took, err := workOff(ctx, contenders[i], n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", contenders[i].name, err)
			}
			results[i].Rounds = append(results[i].Rounds, float64(took)/float64(n))
		}
	}
	return results, nil
}

func rate(r pairs.Result) string {
	s := r.Time()
	return fmt.Sprintf("%s a job, %.0f jobs/s", report.Duration(s.Median), 1e9/s.Median)
}

func workOff(ctx context.Context, w worker, n int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := w.fill(ctx, n); err != nil {
		return 0, err
	}
	begun := time.Now()
	done, stop, err := w.start(ctx)
	if err != nil {
		return 0, err
	}
	for done() < int64(n) {
		if ctx.Err() != nil {
			return 0, fmt.Errorf("%d of %d jobs are done: %w", done(), n, ctx.Err())
		}
		time.Sleep(time.Millisecond)
	}
	took := time.Since(begun)
	return took, stop()
}

// bare is asynq by itself.
func (l *lab) bare(concurrency int) worker { return l.bares(1, concurrency) }

// bares is several servers of asynq in this process.
func (l *lab) bares(servers, concurrency int) worker {
	name, n := "", 0
	return worker{
		name: fmt.Sprintf("asynq, %d × concurrency %d", servers, concurrency),
		fill: func(ctx context.Context, jobs int) (err error) { n = jobs; name, err = l.fill(ctx, jobs); return err },
		start: func(ctx context.Context) (func() int64, func() error, error) {
			var ran atomic.Int64
			var stops []func() error
			for range servers {
				s := asynq.NewServerFromRedisClient(l.rdb, asynq.Config{Concurrency: concurrency, Queues: map[string]int{name: 1}, LogLevel: asynq.FatalLevel})
				if err := s.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { ran.Add(1); return nil })); err != nil {
					return nil, nil, errors.Join(err, all(stops))
				}
				stops = append(stops, func() error { s.Shutdown(); return nil })
			}
			return l.recorded(ctx, name, n, &ran), func() error { return all(stops) }, nil
		},
	}
}

// fill stores jobs in a queue of its own.
func (l *lab) fill(ctx context.Context, n int) (string, error) {
	j, name, err := l.jobs()
	if err != nil {
		return "", err
	}
	batch := make([]queue.Job, n)
	for i := range batch {
		batch[i] = task{i}
	}
	_, err = j.EnqueueMany(ctx, batch)
	return name, err
}

// recorded is how many jobs are done. That the last ones are recorded in Redis is part of the work.
func (l *lab) recorded(ctx context.Context, name string, n int, ran *atomic.Int64) func() int64 {
	return func() int64 {
		done := ran.Load()
		if done < int64(n) {
			return done
		}
		if active, err := l.rdb.LLen(ctx, "asynq:{"+name+"}:active").Result(); err != nil || active > 0 {
			return done - 1
		}
		return done
	}
}

// all ends what was begun, at once.
func all(stops []func() error) error {
	errs := make([]error, len(stops))
	var group sync.WaitGroup
	for i, stop := range stops {
		group.Go(func() { errs[i] = stop() })
	}
	group.Wait()
	return errors.Join(errs...)
}

// ours is package queue.
func (l *lab) ours(what string, slots, limit int) worker { return l.several(what, 1, slots, limit) }

// several is package queue with more than one worker in this process.
func (l *lab) several(what string, workers, slots, limit int) worker {
	name, n := "", 0
	return worker{
		name: what,
		fill: func(ctx context.Context, jobs int) (err error) { n = jobs; name, err = l.fill(ctx, jobs); return err },
		start: func(ctx context.Context) (func() int64, func() error, error) {
			q := queue.Queue{Name: name}
			if limit > 0 {
				q.Rate = queue.Rate{Max: limit, Per: time.Second}
			}
			j, err := queue.New(l.rdb, []queue.Queue{q}, nil)
			if err != nil {
				return nil, nil, err
			}
			var done atomic.Int64
			var stops []func() error
			run, cancel := context.WithCancel(context.Background())
			for range workers {
				w, err := j.NewWorker(&queue.WorkerOptions{Concurrency: slots, MaxConcurrency: slots})
				if err != nil {
					cancel()
					return nil, nil, errors.Join(err, all(stops))
				}
				queue.Handle(w, func(context.Context, task) error { done.Add(1); return nil })
				ran := make(chan error, 1)
				go func() { ran <- w.Run(run) }()
				stops = append(stops, func() error { return <-ran })
			}
			return l.recorded(ctx, name, n, &done), func() error { cancel(); return all(stops) }, nil
		},
	}
}

type riverWorker struct {
	river.WorkerDefaults[riverArgs]
	done *atomic.Int64
}

func (w *riverWorker) Work(context.Context, *river.Job[riverArgs]) error { w.done.Add(1); return nil }

func (l *lab) river() worker {
	return worker{
		name: "River",
		fill: func(ctx context.Context, n int) error {
			if err := l.emptyRiver(ctx); err != nil {
				return err
			}
			return l.fillRiver(ctx, n)
		},
		start: func(ctx context.Context) (func() int64, func() error, error) {
			w := &riverWorker{done: new(atomic.Int64)}
			workers := river.NewWorkers()
			river.AddWorker(workers, w)
			c, err := river.NewClient(riverpgxv5.New(l.pool), &river.Config{
				Logger: slog.New(slog.DiscardHandler), Workers: workers, FetchCooldown: 5 * time.Millisecond, FetchPollInterval: 20 * time.Millisecond,
				Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2000}},
			})
			if err != nil {
				return nil, nil, err
			}
			return w.done.Load, func() error { return c.Stop(context.Background()) }, c.Start(context.Background())
		},
	}
}
