package metricsbench

import (
	"context"
	"errors"

	"github.com/scaleaware/scaleaware/bench/internal/gobench"
	"github.com/scaleaware/scaleaware/bench/internal/report"
)

const evaluateNote = "`BenchmarkEvaluate` of package metrics, since the evaluator is not exported: 24 alerts and more over a process with 100 routes, whose window of seven hours is full. One tick: samples in, values and states out."

// evaluate takes the figures of the package's own benchmark.
func (b bench) evaluate(ctx context.Context) ([]report.Row, error) {
	benchtime, count := "200x", "10"
	if b.quick {
		benchtime, count = "50x", "2"
	}
	figures, err := gobench.Run(ctx, b.module, "./metrics", "^BenchmarkEvaluate$", "-cpu", "1", "-benchtime", benchtime, "-count", count)
	if err != nil {
		return nil, err
	}
	tick, ok := figures[gobench.Key{Name: "Evaluate", CPUs: 1}]
	if !ok {
		return nil, errors.New("no figures of BenchmarkEvaluate")
	}
	return []report.Row{{
		What: "a tick of the evaluator", Goal: "≤ 200 µs, 0 allocs", Ours: report.Time(tick.Ns) + ", " + report.Allocations(tick.Allocs, tick.Bytes),
		Met: report.All(report.MedianAtMost(tick.Ns, 200e3), report.AtMost(tick.Allocs, 0)),
	}}, nil
}
