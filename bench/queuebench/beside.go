package queuebench

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/queue"
)

const besideNote = "A thousand jobs that do nothing, in a queue of a worker with 50 slots that has another queue, too, limited to ten jobs a second: empty, or with five thousand waiting. In turns, on fresh queues."

// chore is the job of the limited queue.
type chore struct{ N int }

func (chore) Kind() string { return "bench.chore" }

// beside shows what a queue that has used up its limit costs the others.
func (l *lab) beside(ctx context.Context) ([]report.Row, error) {
	if err := l.redis(ctx); err != nil {
		return nil, err
	}
	n, rounds := 1000, 21
	if l.quick {
		rounds = 3
	}
	results, err := inTurns(ctx, []worker{l.critical("alone", 0), l.critical("beside", 5000)}, n, rounds)
	if err != nil {
		return nil, err
	}
	ratio := pairs.Ratio(results[1], results[0])
	return []report.Row{{
		What: "1,000 jobs beside a queue that is over its limit, against the same alone", Goal: "≤ 1.1 ×",
		Peer: rate(results[0]), Ours: rate(results[1]), Ratio: report.Ratio(ratio), Met: report.MedianAtMost(ratio, 1.1),
	}}, nil
}

// critical works a queue off while another one, limited, has a backlog.
func (l *lab) critical(what string, backlog int) worker {
	name, n := "", 0
	queues := func() []queue.Queue {
		return []queue.Queue{{Name: name, Weight: 6}, {Name: name + "-low", Rate: queue.Rate{Max: 10, Per: time.Second}}}
	}
	return worker{
		name: what,
		fill: func(ctx context.Context, jobs int) (err error) {
			n = jobs
			if name, err = l.fill(ctx, jobs); err != nil || backlog == 0 {
				return err
			}
			j, err := queue.New(l.rdb, queues(), nil)
			if err != nil {
				return err
			}
			chores := make([]queue.Job, backlog)
			for i := range chores {
				chores[i] = chore{i}
			}
			_, err = j.EnqueueMany(ctx, chores, queue.On(name+"-low"))
			return err
		},
		start: func(ctx context.Context) (func() int64, func() error, error) {
			j, err := queue.New(l.rdb, queues(), nil)
			if err != nil {
				return nil, nil, err
			}
			w, err := j.NewWorker(&queue.WorkerOptions{Concurrency: 50})
			if err != nil {
				return nil, nil, err
			}
			var done atomic.Int64
			queue.Handle(w, func(context.Context, task) error { done.Add(1); return nil })
			queue.Handle(w, func(context.Context, chore) error { return nil })
			run, cancel := context.WithCancel(context.Background())
			ran := make(chan error, 1)
			go func() { ran <- w.Run(run) }()
			return l.recorded(ctx, name, n, &done), func() error { cancel(); return <-ran }, nil
		},
	}
}
