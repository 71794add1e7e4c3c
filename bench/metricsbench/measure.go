package metricsbench

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
)

// Options say what is measured.
type Options struct {
	// Only selects tables by their titles. Zero means all.
	Only *regexp.Regexp
	// Quick shortens everything: figures to try the harness with, not to keep.
	Quick bool
	// Module is the folder of the module whose packages' benchmarks are run.
	Module string
}

// Modules are those whose versions matter.
var Modules = []string{
	"github.com/prometheus/client_golang", "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp",
	"github.com/exaring/otelpgx", "github.com/redis/go-redis/extra/redisotel/v9", "go.opentelemetry.io/otel/sdk/metric",
}

type bench struct {
	quick  bool
	module string
}

// Measure returns the tables.
func Measure(ctx context.Context, o *Options) (tables []report.Table, err error) {
	b := bench{o.Quick, o.Module}
	return report.Measure(ctx, o.Only,
		report.Subject{Title: "HTTP middleware", Note: httpNote, Rows: b.http},
		report.Subject{Title: "Redis hook", Note: redisNote, Rows: b.redis},
		report.Subject{Title: "Query tracer", Note: pgxNote, Rows: b.pgx},
		report.Subject{Title: "Job wrapper", Note: jobNote, Rows: b.job},
		report.Subject{Title: "Scrape", Note: scrapeNote, Rows: b.scrape},
		report.Subject{Title: "Evaluator", Note: evaluateNote, Rows: b.evaluate})
}

func (b bench) run(ctx context.Context, contenders ...pairs.Contender) ([]pairs.Result, error) {
	o := &pairs.Options{Total: 3 * time.Second}
	if b.quick {
		o.Total /= 8
	}
	return pairs.Run(ctx, o, contenders...)
}

// added is what an operation costs more than the bare one, round by round.
func added(with, bare pairs.Result) pairs.Result {
	r := pairs.Result{Name: with.Name, Allocs: with.Allocs - bare.Allocs, Bytes: with.Bytes - bare.Bytes}
	for i := range min(len(with.Rounds), len(bare.Rounds)) {
		r.Rounds = append(r.Rounds, with.Rounds[i]-bare.Rounds[i])
	}
	return r
}

func figures(r pairs.Result) string { return report.Time(r.Time()) + ", " + report.Cost(r) }

// tolerance is what the background adds to a mean of allocations.
const tolerance = 0.1

// compare is the row of our cost against a peer's.
func compare(what string, ours, peer pairs.Result, ratio, allocs float64) report.Row {
	r := pairs.Ratio(ours, peer)
	return report.Row{
		What: what, Goal: fmt.Sprintf("≤ %.2f ×, ≤ %s allocs", ratio, report.Count(allocs)),
		Peer: figures(peer), Ours: figures(ours), Ratio: report.Ratio(r),
		Met: report.All(report.MedianAtMost(r, ratio), report.AtMost(ours.Allocs, allocs+tolerance)),
	}
}

// limited is the row of a cost with a goal of its own.
func limited(what string, ours pairs.Result, limit time.Duration, allocs float64) report.Row {
	return report.Row{
		What: what, Goal: fmt.Sprintf("≤ %s, ≤ %s allocs", report.Since(limit), report.Count(allocs)), Ours: figures(ours),
		Met: report.All(report.MedianAtMost(ours.Time(), float64(limit)), report.AtMost(ours.Allocs, allocs+tolerance)),
	}
}
