package queuebench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/redisclient"
)

const (
	enqueueNote = "One job after the other, by one caller; then a thousand with one call, against a thousand calls."
	pickupNote  = "A worker waits at an empty queue, and jobs come at random moments: the time from the call to the handler, and how many commands the worker sends while nothing comes. Delayed jobs: from their time to the handler."
)

// enqueue compares storing jobs.
func (l *lab) enqueue(ctx context.Context) ([]report.Row, error) {
	if err := l.redis(ctx); err != nil {
		return nil, err
	}
	j, name, err := l.jobs()
	if err != nil {
		return nil, err
	}
	bare := asynq.NewClientFromRedisClient(l.rdb)
	thousand := make([]queue.Job, 1000)
	for i := range thousand {
		thousand[i] = task{i}
	}
	o := &pairs.Options{Total: 6 * time.Second}
	if l.quick {
		o.Total /= 4
	}
	one, err := pairs.Run(ctx, o,
		pairs.Contender{Name: "asynq", Op: func(ctx context.Context) error {
			_, err := bare.EnqueueContext(ctx, asynq.NewTask("bench", []byte(`{"n":1}`)), asynq.Queue(name))
			return err
		}},
		pairs.Contender{Name: "queue", Op: func(ctx context.Context) error { _, err := j.Enqueue(ctx, task{1}); return err }},
	)
	if err != nil {
		return nil, err
	}
	o.MinRounds, o.AllocRuns = 8, -1
	many, err := pairs.Run(ctx, o,
		pairs.Contender{Name: "a thousand calls", Op: func(ctx context.Context) error {
			for _, job := range thousand {
				if _, err := j.Enqueue(ctx, job); err != nil {
					return err
				}
			}
			return nil
		}},
		pairs.Contender{Name: "one call", Op: func(ctx context.Context) error { _, err := j.EnqueueMany(ctx, thousand); return err }},
	)
	if err != nil {
		return nil, err
	}
	_, err = j.Purge(ctx, name, queue.Waiting)
	single, batch := pairs.Ratio(one[1], one[0]), pairs.Ratio(many[1], many[0])
	return []report.Row{
		{What: "Enqueue, against asynq's", Goal: "≤ 1.1", Peer: report.Time(one[0].Time()) + ", " + report.Cost(one[0]), Ours: report.Time(one[1].Time()) + ", " + report.Cost(one[1]), Ratio: report.Ratio(single), Met: report.MedianAtMost(single, 1.1)},
		{What: "EnqueueMany of 1000, against as many of Enqueue", Goal: "≥ 10 × as fast: ≤ 0.1", Peer: report.Time(many[0].Time()), Ours: report.Time(many[1].Time()), Ratio: report.Ratio(batch), Met: report.MedianAtMost(batch, 0.1)},
	}, err
}

// pickup measures how fast a waiting worker notices a job.
func (l *lab) pickup(ctx context.Context) ([]report.Row, error) {
	if err := l.redis(ctx); err != nil {
		return nil, err
	}
	n := 200
	if l.quick {
		n = 30
	}
	rdb := redisclient.New(redisclient.Options(l.server.Addrs()...))
	defer rdb.Close()
	counter := new(sent)
	rdb.AddHook(counter)
	name := "pickup"
	j, err := queue.New(rdb, []queue.Queue{{Name: name}}, nil)
	if err != nil {
		return nil, err
	}
	w, err := j.NewWorker(nil)
	if err != nil {
		return nil, err
	}
	came := make(chan time.Time, 1)
	queue.Handle(w, func(context.Context, task) error { came <- time.Now(); return nil })
	run, cancel := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- w.Run(run) }()
	defer func() { cancel(); <-ran }()
	took, err := arrivals(ctx, n, came, func(ctx context.Context, at time.Time) error {
		_, err := j.Enqueue(ctx, task{}, queue.At(at))
		return err
	})
	if err != nil {
		return nil, err
	}
	before := counter.n.Load()
	const quiet = 5 * time.Second
	time.Sleep(quiet)
	perSecond := float64(counter.n.Load()-before) / quiet.Seconds()

	bare := asynq.NewClientFromRedisClient(l.rdb)
	server := asynq.NewServerFromRedisClient(l.rdb, asynq.Config{Concurrency: 10, Queues: map[string]int{name + "-bare": 1}, LogLevel: asynq.FatalLevel})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { came <- time.Now(); return nil })); err != nil {
		return nil, err
	}
	defer server.Shutdown()
	peers, err := arrivals(ctx, n/5, came, func(ctx context.Context, at time.Time) error {
		_, err := bare.EnqueueContext(ctx, asynq.NewTask("bench", nil), asynq.Queue(name+"-bare"), asynq.ProcessAt(at))
		return err
	})
	if err != nil {
		return nil, err
	}
	return []report.Row{
		{What: "an idle worker starts a job, 95th percentile", Goal: "≤ 30 ms", Peer: report.Since(at(peers.now, 95)), Ours: report.Since(at(took.now, 95)), Met: report.AtMost(at(took.now, 95).Seconds(), 0.030)},
		{What: "commands a second of an idle worker", Goal: "≤ 60", Ours: fmt.Sprintf("%.0f", perSecond), Met: report.AtMost(perSecond, 60)},
		{What: "a delayed job is late, 95th percentile", Goal: "≤ 600 ms", Peer: report.Since(at(peers.later, 95)), Ours: report.Since(at(took.later, 95)), Met: report.AtMost(at(took.later, 95).Seconds(), 0.6)},
		{What: "the earliest delayed job", Goal: "never early", Peer: report.Since(at(peers.later, 0)), Ours: report.Since(at(took.later, 0)), Met: report.AtLeast(at(took.later, 0).Seconds(), 0)},
	}, nil
}

type arrival struct{ now, later []time.Duration }

// arrivals stores jobs for now and for later, one at a time at random moments.
func arrivals(ctx context.Context, n int, came <-chan time.Time, enqueue func(ctx context.Context, at time.Time) error) (arrival, error) {
	var out arrival
	for i := range n {
		time.Sleep(time.Duration(rand.IntN(80)) * time.Millisecond)
		due := time.Now()
		if i%4 == 0 {
			due = due.Add(time.Duration(200+rand.IntN(1200)) * time.Millisecond)
		}
		if err := enqueue(ctx, due); err != nil {
			return out, err
		}
		select {
		case at := <-came:
			if i%4 == 0 {
				out.later = append(out.later, at.Sub(due))
			} else {
				out.now = append(out.now, at.Sub(due))
			}
		case <-time.After(patience):
			return out, fmt.Errorf("a job did not come within %v", patience)
		}
	}
	return out, ctx.Err()
}

func at(took []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

// sent counts commands.
type sent struct{ n atomic.Int64 }

func (s *sent) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *sent) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { s.n.Add(1); return next(ctx, cmd) }
}

func (s *sent) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { s.n.Add(int64(len(cmds))); return next(ctx, cmds) }
}
