package dbsplitbench

import (
	"context"
	"fmt"
	"runtime"

	"github.com/scaleaware/scaleaware/bench/internal/gobench"
	"github.com/scaleaware/scaleaware/bench/internal/report"
)

const decisionNote = "`BenchmarkRoute` is the pure decision, `BenchmarkDecide` all that a read does for it: watermark, clock, random number, counters. " +
	"Both run on one CPU and on all; peer is one CPU where the scaling is judged, which is met at 75 % of the ideal. " +
	"Time on one CPU is CPU time, so that what other processes take is not in it; on all it is the quickest of ten runs, against the quickest on one."

// decision takes the figures of dbsplit's own benchmarks, since the decision is not exported.
func (l *lab) decision(ctx context.Context) ([]report.Row, error) {
	cpus := runtime.NumCPU()
	benchtime, count := "100ms", "10"
	if l.opts.Quick {
		benchtime, count = "20ms", "2"
	}
	figures, err := gobench.Run(ctx, l.opts.Module, "./dbsplit", "^Benchmark(Route|Decide)$",
		"-cpu", fmt.Sprintf("1,%d", cpus), "-benchtime", benchtime, "-count", count)
	if err != nil {
		return nil, err
	}
	var rows []report.Row
	for _, bench := range []struct{ name, what string }{{"Route", "route"}, {"Decide", "decide"}} {
		for _, token := range []struct {
			name, what string
			limit      float64
		}{{"none", "no token", 80}, {"token", "token and staleness", 200}} {
			for _, replicas := range []int{2, 4, 8} {
				name := fmt.Sprintf("%s/replicas=%d/token=%s", bench.name, replicas, token.name)
				one, ok := figures[gobench.Key{Name: name, CPUs: 1}]
				if !ok {
					return nil, fmt.Errorf("no figures of Benchmark%s", name)
				}
				what := fmt.Sprintf("%s, %s, %d replicas", bench.what, token.what, replicas)
				rows = append(rows, report.Row{
					What: what, Goal: fmt.Sprintf("≤ %.0f ns, 0 allocs", token.limit),
					Ours: report.Time(one.CPU) + " of CPU, " + report.Allocations(one.Allocs, one.Bytes),
					Met:  report.All(report.MedianAtMost(one.CPU, token.limit), report.AtMost(one.Allocs, 0)),
				})
				all, ok := figures[gobench.Key{Name: name, CPUs: cpus}]
				if !ok || cpus == 1 || replicas != 8 {
					continue
				}
				ratio, limit := all.Lowest/one.Lowest, 1/(0.75*float64(cpus))
				rows = append(rows, report.Row{
					What: fmt.Sprintf("%s on %d CPUs", what, cpus), Goal: fmt.Sprintf("ratio ≤ %.2f", limit),
					Peer: report.Duration(one.Lowest), Ours: report.Duration(all.Lowest), Ratio: fmt.Sprintf("%.2f", ratio),
					Met: report.AtMost(ratio, limit),
				})
			}
		}
	}
	return rows, nil
}
