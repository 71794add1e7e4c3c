package doccode_test

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaleaware/scaleaware/queue"
)

func Example_autoscaling() {
	_ = func(jobs *queue.Jobs, hook queue.ScaleHook) error {
		rule := queue.ScaleRule{Queue: "lead-processing", Above: 1000, Up: 5, Below: 100, Down: 2}
		err := jobs.Autoscale(rule, hook, nil)
		return err
	}
	_ = func(pool *pgxpool.Pool) *queue.ScaleOptions {
		options :=
			&queue.ScaleOptions{Bottleneck: func(ctx context.Context) (string, error) {
				if s := pool.Stat(); s.AcquiredConns() >= s.MaxConns()*9/10 {
					return "database primary", nil
				}
				return "", nil
			}}
		return options
	}
	_ = func() queue.ScaleRule {
		rule := queue.ScaleRule{Queue: "lead-processing", Latency: 30 * time.Second, Min: 2, Max: 20}
		return rule
	}
}
