package queuebench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/plot"
	"github.com/scaleaware/scaleaware/queue"
)

const curveSlots = 50

// Curves measures how throughput falls with the number of queues that a worker has.
func Curves(ctx context.Context, o *Options) (charts []plot.Chart, err error) {
	l := &lab{quick: o.Quick}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.redis(ctx); err != nil {
		return nil, err
	}
	c := plot.Chart{
		Name: "curve-queues", Title: "Jobs that do nothing, spread over queues", X: "queues of one worker", Y: "jobs a second",
		Series: []plot.Series{{Name: "queue"}, {Name: "asynq"}},
	}
	jobs, rounds := 12_800, 5
	if l.quick {
		jobs, rounds = 1_280, 1
	}
	for _, queues := range []int{1, 4, 16, 64} {
		for i, start := range []starter{l.startOurs, l.startBare} {
			var rates []float64
			for range rounds {
				took, err := l.spread(ctx, queues, jobs, start)
				if err != nil {
					return nil, err
				}
				rates = append(rates, float64(jobs)/took.Seconds())
			}
			c.Series[i].Points = append(c.Series[i].Points, plot.Point{X: float64(queues), Y: pairs.SpreadOf(rates).Median})
		}
	}
	return []plot.Chart{c}, nil
}

// starter starts a worker on queues, which counts what it has done.
type starter func(names []string, done *atomic.Int64) (stop func() error, err error)

func (l *lab) spread(ctx context.Context, queues, jobs int, start starter) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var names []string
	for range queues {
		name, err := l.fill(ctx, jobs/queues)
		if err != nil {
			return 0, err
		}
		names = append(names, name)
	}
	var done atomic.Int64
	begun := time.Now()
	stop, err := start(names, &done)
	if err != nil {
		return 0, err
	}
	for done.Load() < int64(jobs) {
		if ctx.Err() != nil {
			return 0, errors.Join(fmt.Errorf("%d of %d jobs are done", done.Load(), jobs), ctx.Err(), stop())
		}
		time.Sleep(time.Millisecond)
	}
	took := time.Since(begun)
	return took, stop()
}

func (l *lab) startOurs(names []string, done *atomic.Int64) (func() error, error) {
	var queues []queue.Queue
	for _, name := range names {
		queues = append(queues, queue.Queue{Name: name})
	}
	j, err := queue.New(l.rdb, queues, nil)
	if err != nil {
		return nil, err
	}
	w, err := j.NewWorker(&queue.WorkerOptions{Concurrency: curveSlots})
	if err != nil {
		return nil, err
	}
	queue.Handle(w, func(context.Context, task) error { done.Add(1); return nil })
	run, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- w.Run(run) }()
	return func() error { cancel(); return <-ran }, nil
}

func (l *lab) startBare(names []string, done *atomic.Int64) (func() error, error) {
	weights := map[string]int{}
	for _, name := range names {
		weights[name] = 1
	}
	s := asynq.NewServerFromRedisClient(l.rdb, asynq.Config{Concurrency: curveSlots, Queues: weights, LogLevel: asynq.FatalLevel})
	err := s.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { done.Add(1); return nil }))
	return func() error { s.Shutdown(); return nil }, err
}
