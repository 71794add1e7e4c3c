package dbsplitbench

import (
	"context"
	"fmt"
	"os"
	"slices"
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

// compareAfresh is compare for groups that are opened anew for each of the repeats, of which each counts as one round. A
// repeat with an error is thrown away, as often as there are others: where clients share a session, one that is held up
// while it writes begins to read in the background, and may then take an answer that is another one's.
func (l *lab) compareAfresh(ctx context.Context, whats []string, repeats int, each time.Duration, open func(context.Context) ([][]entry, func(), error)) (rows []report.Row, err error) {
	var groups [][]entry
	results := make([][]pairs.Result, len(whats))
	repeat := func(opts *pairs.Options) ([][]pairs.Result, error) {
		opened, end, err := open(ctx)
		if err != nil {
			return nil, err
		}
		defer end()
		groups = opened
		all := make([][]pairs.Result, len(whats))
		for i, what := range whats {
			if all[i], err = pairs.Run(ctx, opts, contenders(groups[i])...); err != nil {
				return nil, fmt.Errorf("%s: %w", what, err)
			}
		}
		return all, nil
	}
	opts := &pairs.Options{Total: each, Turn: 1}
	for done, failed := 0, 0; done < repeats; {
		all, err := repeat(opts)
		if err != nil {
			if failed++; failed > repeats || ctx.Err() != nil {
				return nil, err
			}
			fmt.Fprintf(os.Stderr, "bench: a repeat is thrown away: %v\n", err)
			continue
		}
		for i := range all {
			results[i] = appendMedians(results[i], all[i])
		}
		done, opts.AllocRuns = done+1, -1
	}
	for i, what := range whats {
		rows = append(rows, judged(what, groups[i], results[i])...)
	}
	return rows, nil
}

// appendMedians adds each contender's median as one round.
func appendMedians(to, more []pairs.Result) []pairs.Result {
	if to == nil {
		to = slices.Clone(more)
		for i := range to {
			to[i].Rounds = nil
		}
	}
	for i := range more {
		to[i].Rounds = append(to[i].Rounds, more[i].Time().Median)
	}
	return to
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
