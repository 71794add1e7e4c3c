package sessionbench

import (
	"context"
	"fmt"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/bench/internal/trips"
)

const (
	requestsNote = "One visitor's requests, one after the other, from the cookie to the end of the response, network included. The idle timeout is 30 minutes where it is said. Allocations are of the whole process, the Redis client's included."
	tripsNote    = "Round trips of one request, counted by a proxy before Redis: a mean of 200 requests."
)

const idleTimeout = 30 * time.Minute

func (l *lab) requests(ctx context.Context) (rows []report.Row, err error) {
	for _, idle := range []time.Duration{0, idleTimeout} {
		for _, action := range actions {
			results, err := l.compare(ctx, action, idle)
			if err != nil {
				return nil, err
			}
			for n, peer := range results[1:3] {
				ratio := pairs.Ratio(results[0], peer)
				row := report.Row{
					What: described(action, idle) + ", peer " + peer.Name, Peer: figures(peer), Ours: figures(results[0]), Ratio: report.Ratio(ratio),
				}
				switch {
				case action == readOne && n == 0:
					row.Goal, row.Met = "≤ 0.60 ×", report.MedianAtMost(ratio, .6)
				case action == untouched && n == 0:
					row.Goal, row.Met = "≤ 6 allocs", report.AtMost(results[0].Allocs, 6.1)
				}
				rows = append(rows, row)
			}
			if action == readOne {
				rows = append(rows, byHandle(results, idle)...)
			}
		}
	}
	return rows, nil
}

// byHandle are the rows of a read by session.From. results are those of compare.
func byHandle(results []pairs.Result, idle time.Duration) []report.Row {
	peer, ours, floor := results[1], results[3], results[4]
	ratio, what := pairs.Ratio(ours, peer), described(readByHandle, idle)
	return []report.Row{{
		What: what + ", peer " + peer.Name, Goal: "≤ 0.60 ×", Peer: figures(peer), Ours: figures(ours), Ratio: report.Ratio(ratio), Met: report.MedianAtMost(ratio, .6),
	}, {
		What: what + ", beside the command alone", Goal: "≤ 5 µs more, ≤ 12 allocs more", Peer: figures(floor), Ours: figures(ours), Ratio: report.Ratio(pairs.Ratio(ours, floor)),
		Met: report.All(report.MedianAtMost(added(ours, floor), 5000), report.AtMost(ours.Allocs-floor.Allocs, 12.1)),
	}}
}

// compare measures ours and its peers, in their order; for a read also ours by session.From, and the command that it sends.
func (l *lab) compare(ctx context.Context, action string, idle time.Duration) ([]pairs.Result, error) {
	if err := l.open(ctx); err != nil {
		return nil, err
	}
	all, err := l.implementations(l.server.Addrs()[0], idle)
	if err != nil {
		return nil, err
	}
	var contenders []pairs.Contender
	for _, i := range all {
		op, err := i.visitor(action)
		if err != nil {
			return nil, err
		}
		contenders = append(contenders, pairs.Contender{Name: i.name, Op: op})
	}
	if action == readOne {
		op, err := all[0].visitor(readByHandle)
		if err != nil {
			return nil, err
		}
		contenders = append(contenders, pairs.Contender{Name: "session.From", Op: op}, pairs.Contender{Name: "the command alone", Op: all[0].command(idle)})
	}
	return l.run(ctx, contenders...)
}

// added is the difference, round by round.
func added(ours, floor pairs.Result) pairs.Spread {
	var rounds []float64
	for i := range ours.Rounds {
		rounds = append(rounds, ours.Rounds[i]-floor.Rounds[i])
	}
	return pairs.SpreadOf(rounds)
}

// atMost is how many round trips a request of ours may cost.
var atMost = map[string]float64{untouched: 0, readOne: 1, writeOne: 2}

func (l *lab) trips(ctx context.Context) (rows []report.Row, err error) {
	if err := l.open(ctx); err != nil {
		return nil, err
	}
	counter, err := trips.New(l.server.Addrs()[0])
	if err != nil {
		return nil, err
	}
	l.closers = append(l.closers, counter.Close)
	for _, idle := range []time.Duration{0, idleTimeout} {
		all, err := l.implementations(counter.Addr(), idle)
		if err != nil {
			return nil, err
		}
		for _, action := range actions {
			var counts []float64
			for _, i := range all {
				count, err := count(ctx, counter, i, action)
				if err != nil {
					return nil, err
				}
				counts = append(counts, count)
			}
			rows = append(rows, report.Row{
				What: described(action, idle), Goal: fmt.Sprintf("≤ %.0f", atMost[action]), Peer: fmt.Sprintf("goredisstore %.2f, redisstore %.2f", counts[1], counts[2]),
				Ours: fmt.Sprintf("%.2f", counts[0]), Met: report.AtMost(counts[0], atMost[action]+.02),
			})
		}
	}
	return rows, nil
}

const counted = 200

func count(ctx context.Context, counter *trips.Counter, i implementation, action string) (float64, error) {
	op, err := i.visitor(action)
	if err != nil {
		return 0, err
	}
	if err := op(ctx); err != nil { // a script is loaded once
		return 0, err
	}
	before := counter.Count()
	for range counted {
		if err := op(ctx); err != nil {
			return 0, err
		}
	}
	return float64(counter.Count()-before) / counted, nil
}

func described(action string, idle time.Duration) string {
	if idle > 0 {
		return action + ", idle timeout"
	}
	return action
}
