package metricsbench

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/metrics"
)

const jobNote = "A job that does nothing, in the wrapper. It reads the clock twice."

func (b bench) job(ctx context.Context) ([]report.Row, error) {
	j, err := metrics.NewJob(prometheus.NewRegistry(), nil)
	if err != nil {
		return nil, err
	}
	run := j.Of("critical", "mail").Wrap(func(context.Context) error { return nil })
	r, err := b.run(ctx, pairs.Contender{Name: "wrapped", Op: run})
	if err != nil {
		return nil, err
	}
	return []report.Row{limited("job wrapper", r[0], 300*time.Nanosecond, 1)}, nil
}
