package cachebench

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
}

// Modules are those whose versions matter.
var Modules = []string{
	"github.com/maypok86/otter/v2", "github.com/viccon/sturdyc", "github.com/redis/go-redis/v9", "github.com/redis/rueidis", "github.com/go-redis/cache/v9",
}

// Measure returns the tables, and facts about the servers.
func Measure(ctx context.Context, o *Options) (tables []report.Table, facts []string, err error) {
	lab := &lab{quick: o.Quick}
	defer func() {
		if e := lab.close(); err == nil {
			err = e
		}
	}()
	tables, err = report.Measure(ctx, o.Only,
		report.Subject{Title: "Hit in the process", Note: insideNote, Rows: lab.inside},
		report.Subject{Title: "Get from Redis", Note: getNote, Rows: lab.get},
		report.Subject{Title: "Get from Redis by 256 callers", Note: crowdNote, Rows: lab.crowd},
		report.Subject{Title: "GetMany", Note: manyNote, Rows: lab.many},
		report.Subject{Title: "Warm, ExtendTTLs, Invalidate", Note: bulkNote, Rows: lab.bulk},
		report.Subject{Title: "Reads while lifetimes are extended", Note: politeNote, Rows: lab.polite},
		report.Subject{Title: "News in another process", Note: newsNote, Rows: lab.news},
		report.Subject{Title: "While a master does not answer", Note: failingNote, Rows: lab.failing})
	if err != nil {
		return nil, nil, err
	}
	return tables, lab.facts(), nil
}

// run compares contenders for as long as all tables are.
func (l *lab) run(ctx context.Context, contenders ...pairs.Contender) ([]pairs.Result, error) {
	o := &pairs.Options{Total: 6 * time.Second}
	if l.quick {
		o.Total /= 4
	}
	return pairs.Run(ctx, o, contenders...)
}

// each is r by one of the n operations that each of its own has.
func each(r pairs.Result, n int) pairs.Result {
	out := pairs.Result{Name: r.Name, Allocs: r.Allocs / float64(n), Bytes: r.Bytes / float64(n)}
	for _, took := range r.Rounds {
		out.Rounds = append(out.Rounds, took/float64(n))
	}
	return out
}

func figures(r pairs.Result) string {
	if r.Allocs < 0 {
		return report.Time(r.Time())
	}
	return report.Time(r.Time()) + ", " + report.Cost(r)
}

// tolerance is what the background adds to a mean of allocations.
const tolerance = 0.3

// row compares times; limit is the ratio to stay under, 0 for none.
func row(what, goal string, ours, peer pairs.Result, limit float64, more ...report.Verdict) report.Row {
	r := pairs.Ratio(ours, peer)
	out := report.Row{What: what, Goal: goal, Peer: figures(peer), Ours: figures(ours), Ratio: report.Ratio(r)}
	if limit > 0 {
		out.Met = report.All(append(more, report.MedianAtMost(r, limit))...)
	}
	return out
}

// throughput words a goal that is a share of the peer's throughput: ratios are of times.
func throughput(share float64) (goal string, limit float64) {
	return fmt.Sprintf("≥ %.2f × throughput: ≤ %.2f", share, 1/share), 1 / share
}
