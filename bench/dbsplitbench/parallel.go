package dbsplitbench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
)

const parallelNote = "QueryRow by many callers at once, on one replica: time for one read of all of them together, so 1/throughput. pgxpool against itself shows the noise. Callers live for 64 reads, and turns are of 50 ms: code and server processes are cold right after a change of turns."

func (l *lab) parallel(ctx context.Context) (rows []report.Row, err error) {
	c, err := l.servers(ctx)
	if err != nil {
		return nil, err
	}
	db, stop, err := openSplit(ctx, calm(), c.Primary().Addr(), c.Replica(0).Addr())
	if err != nil {
		return nil, err
	}
	defer stop()
	pool, err := openPool(ctx, address(c.Replica(0).Addr()))
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	again, err := openPool(ctx, address(c.Replica(0).Addr()))
	if err != nil {
		return nil, err
	}
	defer again.Close()
	if err := c.Replica(0).WaitCaughtUp(ctx); err != nil {
		return nil, err
	}
	at, err := db.Position(ctx)
	if err != nil {
		return nil, err
	}

	const each = 64 // reads of each caller in one operation
	for _, callers := range []int{1, 4, 16, 64} {
		crowd := func(read func(context.Context) error, token bool) func(context.Context) error {
			return func(ctx context.Context) error {
				var g errgroup.Group
				for range callers {
					g.Go(func() error {
						ctx := ctx
						if token {
							var w *scaleaware.Watermark
							ctx, w = scaleaware.WithWatermark(ctx)
							w.Raise(at)
						}
						for range each {
							if err := read(ctx); err != nil {
								return err
							}
						}
						return nil
					})
				}
				return g.Wait()
			}
		}
		split := func(ctx context.Context) error { return readOne(ctx, db.Read()) }
		results, err := pairs.Run(ctx, &pairs.Options{Total: l.opts.scaled(6 * time.Second), Turn: 50 * time.Millisecond, AllocRuns: -1},
			pairs.Contender{Name: "pgxpool", Op: crowd(func(ctx context.Context) error { return readOne(ctx, pool) }, false)},
			pairs.Contender{Name: "pgxpool again", Op: crowd(func(ctx context.Context) error { return readOne(ctx, again) }, false)},
			pairs.Contender{Name: "dbsplit", Op: crowd(split, false)},
			pairs.Contender{Name: "dbsplit with a token", Op: crowd(split, true)},
		)
		if err != nil {
			return nil, err
		}
		for i := range results {
			for j := range results[i].Rounds {
				results[i].Rounds[j] /= float64(callers * each)
			}
		}
		for _, r := range results[1:] {
			ratio := pairs.Ratio(r, results[0])
			row := report.Row{
				What: fmt.Sprintf("%d callers: %s, peer pgxpool", callers, r.Name),
				Peer: report.Time(results[0].Time()), Ours: report.Time(r.Time()), Ratio: report.Ratio(ratio),
			}
			if strings.HasPrefix(r.Name, "dbsplit") {
				row.Goal, row.Met = "≤ +2 %", report.MedianAtMost(ratio, 1.02)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}
