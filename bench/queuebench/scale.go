package queuebench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/queue"
)

const scaleNote = "From the moment when more than a thousand jobs wait to the call of the hook, by a rule that looks each second; and from a decision for eight slots instead of two, carried out in this process, until the eighth job runs."

// scaling measures how fast more workers come.
func (l *lab) scaling(ctx context.Context) ([]report.Row, error) {
	if err := l.redis(ctx); err != nil {
		return nil, err
	}
	rounds := 10
	if l.quick {
		rounds = 3
	}
	hooks, err := l.crossings(ctx, rounds)
	if err != nil {
		return nil, err
	}
	resizes, err := l.resizes(ctx, 2*rounds)
	if err != nil {
		return nil, err
	}
	figures := func(took []time.Duration) string {
		return fmt.Sprintf("p50 %s, longest of %d %s", report.Since(at(took, 50)), len(took), report.Since(slices.Max(took)))
	}
	return []report.Row{
		{What: "crossing to hook", Goal: "≤ the interval and 1 s: 2 s", Ours: figures(hooks), Met: report.AtMost(slices.Max(hooks).Seconds(), 2)},
		{What: "decision to eight jobs at once", Goal: "≤ 50 ms", Ours: figures(resizes), Met: report.AtMost(slices.Max(resizes).Seconds(), 0.05)},
	}, nil
}

func (l *lab) crossings(ctx context.Context, rounds int) (took []time.Duration, err error) {
	j, name, err := l.jobs()
	if err != nil {
		return nil, err
	}
	called := make(chan queue.Decision, 8)
	hook := func(_ context.Context, d queue.Decision) error { called <- d; return nil }
	rule := queue.ScaleRule{Queue: name, Above: 1000, Up: 5, Below: 100, Down: 2}
	if err := j.Autoscale(rule, hook, &queue.ScaleOptions{Interval: time.Second}); err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- j.Run(run) }()
	defer func() { cancel(); err = errors.Join(err, <-ran) }()
	until := func(workers int) error {
		for {
			select {
			case d := <-called:
				if d.Workers == workers {
					return nil
				}
			case <-time.After(patience):
				return fmt.Errorf("no hook for %d workers was called", workers)
			}
		}
	}
	if err := until(2); err != nil {
		return nil, err
	}
	for range rounds {
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
		if err := store(ctx, j, name, 1001); err != nil {
			return nil, err
		}
		begun := time.Now()
		if err := until(5); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begun))
		if _, err := j.Purge(ctx, name, queue.Waiting); err != nil {
			return nil, err
		}
		if err := until(2); err != nil {
			return nil, err
		}
	}
	return took, nil
}

func (l *lab) resizes(ctx context.Context, rounds int) (took []time.Duration, err error) {
	j, name, err := l.jobs()
	if err != nil {
		return nil, err
	}
	w, err := j.NewWorker(&queue.WorkerOptions{Concurrency: 2, MaxConcurrency: 8})
	if err != nil {
		return nil, err
	}
	begun, release := make(chan time.Time, 64), make(chan struct{})
	queue.Handle(w, func(context.Context, task) error { begun <- time.Now(); <-release; return nil })
	run, cancel := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- w.Run(run) }()
	defer func() { cancel(); err = errors.Join(err, <-ran) }()
	for range rounds {
		if err := store(ctx, j, name, 8); err != nil {
			return nil, err
		}
		<-begun
		<-begun
		time.Sleep(50 * time.Millisecond)
		decided := time.Now()
		if err := w.ScaleTo(ctx, queue.Decision{Queue: name, Workers: 8}); err != nil {
			return nil, err
		}
		var last time.Time
		for range 6 {
			last = <-begun
		}
		took = append(took, last.Sub(decided))
		for range 8 {
			release <- struct{}{}
		}
		for w.Busy() > 0 {
			time.Sleep(time.Millisecond)
		}
		if err := w.Resize(2); err != nil {
			return nil, err
		}
	}
	return took, nil
}
