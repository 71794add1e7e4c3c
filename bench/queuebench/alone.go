package queuebench

import (
	"context"
	"fmt"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
)

const aloneNote = "As above, where each worker has one slot, so that a job is fetched by itself and ended by itself, by package queue as by asynq: " +
	"what the gate costs without what batches save. First one worker, which waits for each answer; then fifty in one process, which keep Redis and the processors busy. Commands of scripts are Redis's own count."

// alone compares the gate with asynq where nothing can be batched.
func (l *lab) alone(ctx context.Context) (rows []report.Row, err error) {
	if err := l.redis(ctx); err != nil {
		return nil, err
	}
	for _, c := range []struct{ workers, jobs, rounds int }{{1, 6_000, 9}, {50, 15_000, 9}} {
		if l.quick {
			c.jobs, c.rounds = c.jobs/4, 3
		}
		contenders := []worker{l.bares(c.workers, 1), l.several(fmt.Sprintf("queue, %d × 1 slot", c.workers), c.workers, 1, 0)}
		results, err := inTurns(ctx, contenders, c.jobs, c.rounds)
		if err != nil {
			return nil, err
		}
		var calls [2]float64
		for i := range contenders {
			if calls[i], err = l.scripts(ctx, func() error { _, err := workOff(ctx, contenders[i], c.jobs); return err }); err != nil {
				return nil, err
			}
			calls[i] /= float64(c.jobs)
		}
		ratio := pairs.Ratio(results[1], results[0])
		rows = append(rows, report.Row{
			What: fmt.Sprintf("%d with one slot each, against as many of asynq", c.workers), Goal: "≥ 0.95 × as fast: ≤ 1.053",
			Peer: fmt.Sprintf("%s, %.2f scripts a job", rate(results[0]), calls[0]), Ours: fmt.Sprintf("%s, %.2f scripts a job", rate(results[1]), calls[1]),
			Ratio: report.Ratio(ratio), Met: report.MedianAtMost(ratio, 1/0.95),
		})
	}
	return rows, nil
}

// scripts counts the calls of scripts that Redis has run for do.
func (l *lab) scripts(ctx context.Context, do func() error) (float64, error) {
	calls := func() (n int, err error) {
		stats, err := l.rdb.InfoMap(ctx, "commandstats").Result()
		if err != nil {
			return 0, err
		}
		_, err = fmt.Sscanf(stats["Commandstats"]["cmdstat_evalsha"], "calls=%d", &n)
		return n, err
	}
	before, err := calls()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := calls()
	return float64(after - before), err
}
