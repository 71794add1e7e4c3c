package queuebench

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/queue"
)

const bulkNote = "What is done to all jobs of a queue at once, while another client asks Redis for an answer each millisecond: how long it takes, and the longest answer. Asynq's own are one command each, which holds Redis up for as long."

// bulk moves very many jobs.
func (l *lab) bulk(ctx context.Context) (rows []report.Row, err error) {
	if err := l.redis(ctx); err != nil {
		return nil, err
	}
	n := 1_000_000
	if l.quick {
		n /= 20
	}
	j, name, err := l.jobs()
	if err != nil {
		return nil, err
	}
	if err := store(ctx, j, name, n); err != nil {
		return nil, err
	}
	for _, step := range []struct {
		what string
		do   func() (int, error)
	}{
		{"Park", func() (int, error) { return j.Park(ctx, name) }},
		{"Unpark", func() (int, error) { return j.Unpark(ctx, name) }},
		{"RetryFailed", func() (int, error) { return j.RetryFailed(ctx, name, nil) }},
		{"Purge", func() (int, error) { return j.Purge(ctx, name, queue.Waiting) }},
	} {
		if step.what == "RetryFailed" {
			if err := l.archive(ctx, name); err != nil {
				return nil, err
			}
		}
		longest := l.probe(ctx)
		begun := time.Now()
		moved, err := step.do()
		took, stall := time.Since(begun), longest()
		if err != nil || moved != n {
			return nil, fmt.Errorf("%s: %d of %d jobs: %w", step.what, moved, n, err)
		}
		rows = append(rows, report.Row{
			What: fmt.Sprintf("%s of %d jobs", step.what, n), Goal: "≤ 15 s, no answer over 50 ms", Ours: fmt.Sprintf("%s, longest answer %s", report.Since(took), report.Since(stall)),
			Met: report.All(report.AtMost(took.Seconds(), 15), report.AtMost(stall.Seconds(), 0.05)),
		})
	}
	return rows, nil
}

// archive makes all waiting jobs failed ones, as if each had used up its attempts.
func (l *lab) archive(ctx context.Context, name string) error {
	pending, prefix := "asynq:{"+name+"}:pending", "asynq:{"+name+"}:t:"
	for {
		ids, err := l.rdb.RPopCount(ctx, pending, 5000).Result()
		if err == redis.Nil {
			return nil
		}
		if err != nil {
			return err
		}
		pipe := l.rdb.Pipeline()
		for _, id := range ids {
			pipe.ZAdd(ctx, "asynq:{"+name+"}:archived", redis.Z{Score: float64(time.Now().Unix()), Member: id})
			pipe.HSet(ctx, prefix+id, "state", "archived")
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
	}
}

// probe asks Redis every millisecond until it is told to return the longest time that an answer took.
func (l *lab) probe(ctx context.Context) (longest func() time.Duration) {
	ctx, stop := context.WithCancel(ctx)
	worst := make(chan time.Duration)
	go func() {
		var longest time.Duration
		for ctx.Err() == nil {
			begun := time.Now()
			if l.rdb.Ping(context.WithoutCancel(ctx)).Err() == nil {
				longest = max(longest, time.Since(begun))
			}
			time.Sleep(time.Millisecond)
		}
		worst <- longest
	}()
	return func() time.Duration { stop(); return <-worst }
}
