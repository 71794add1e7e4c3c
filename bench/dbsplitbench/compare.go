package dbsplitbench

import (
	"context"
	"fmt"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
)

// goal bounds what one operation may need more than the peer's; nil means that it is for information.
type goal struct {
	allocs, bytes float64
	time          float64 // of the medians' ratio
}

var readGoal = &goal{allocs: 1, bytes: 64, time: 1.02}

func (g *goal) String() string {
	if g == nil {
		return ""
	}
	return fmt.Sprintf("≤ +%s allocs, ≤ +%s B, ≤ %+.0f %%", report.Count(g.allocs), report.Count(g.bytes), 100*(g.time-1))
}

// tolerance is what the background adds to a mean of allocations.
const tolerance = 0.1

func (g *goal) judge(ours, peer pairs.Result) report.Verdict {
	if g == nil {
		return report.NoGoal
	}
	return report.All(
		report.AtMost(ours.Allocs-peer.Allocs, g.allocs+tolerance),
		report.AtMost(ours.Bytes-peer.Bytes, g.bytes+16*tolerance),
		report.MedianAtMost(pairs.Ratio(ours, peer), g.time),
	)
}

// entry is one way to do what is compared. The first one of a group is the peer of the others.
type entry struct {
	name string
	goal *goal
	op   func(ctx context.Context) error
}

// compare measures a group together and makes a row for each entry but the first.
func (l *lab) compare(ctx context.Context, what string, total time.Duration, entries ...entry) ([]report.Row, error) {
	results, err := pairs.Run(ctx, &pairs.Options{Total: l.opts.scaled(total), Turn: 1}, contenders(entries)...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return judged(what, entries, results), nil
}

// compareAfresh is compare for a group that is opened anew for each of the repeats, of which each counts as one round.
func (l *lab) compareAfresh(ctx context.Context, what string, repeats int, each time.Duration, open func(context.Context) ([]entry, func(), error)) ([]report.Row, error) {
	var results []pairs.Result
	var entries []entry
	for repeat := range repeats {
		opts := &pairs.Options{Total: each, Turn: 1}
		if repeat > 0 {
			opts.AllocRuns = -1
		}
		more, err := func() ([]pairs.Result, error) {
			var end func()
			var err error
			if entries, end, err = open(ctx); err != nil {
				return nil, err
			}
			defer end()
			return pairs.Run(ctx, opts, contenders(entries)...)
		}()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		for i := range more {
			median := []float64{more[i].Time().Median}
			if repeat == 0 {
				results = append(results, more[i])
				results[i].Rounds = median
				continue
			}
			results[i].Rounds = append(results[i].Rounds, median...)
		}
	}
	return judged(what, entries, results), nil
}

func contenders(entries []entry) (all []pairs.Contender) {
	for _, e := range entries {
		all = append(all, pairs.Contender{Name: e.name, Op: e.op})
	}
	return all
}

func judged(what string, entries []entry, results []pairs.Result) (rows []report.Row) {
	figures := func(r pairs.Result) string { return report.Time(r.Time()) + ", " + report.Cost(r) }
	peer := results[0]
	for i, e := range entries[1:] {
		r := results[i+1]
		rows = append(rows, report.Row{
			What: fmt.Sprintf("%s: %s, peer %s", what, e.name, entries[0].name), Goal: e.goal.String(),
			Peer: figures(peer), Ours: figures(r), Ratio: report.Ratio(pairs.Ratio(r, peer)), Met: e.goal.judge(r, peer),
		})
	}
	return rows
}
