package sessionbench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/plot"
	"github.com/scaleaware/scaleaware/readonly"
)

// Curves measures how long read-only mode takes to be obeyed everywhere.
func Curves(ctx context.Context, o *Options) (charts []plot.Chart, err error) {
	l := &lab{quick: o.Quick}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.open(ctx); err != nil {
		return nil, err
	}
	c := plot.Chart{
		Name: "curve-readonly", Title: "Read-only mode, from the call until all instances have acknowledged", X: "instances", Y: "ms",
		Series: []plot.Series{{Name: "on"}, {Name: "off"}},
	}
	counts, rounds := []int{1, 2, 5, 10, 25, 50, 100}, 20
	if l.quick {
		counts, rounds = []int{1, 5}, 3
	}
	for _, n := range counts {
		on, off, err := l.toggle(ctx, n, rounds)
		if err != nil {
			return nil, err
		}
		c.Series[0].Points = append(c.Series[0].Points, plot.Point{X: float64(n), Y: pairs.SpreadOf(on).Median})
		c.Series[1].Points = append(c.Series[1].Points, plot.Point{X: float64(n), Y: pairs.SpreadOf(off).Median})
	}
	return []plot.Chart{c}, nil
}

// toggle has as many instances in this process, each with a connection of its own.
func (l *lab) toggle(ctx context.Context, instances, rounds int) (on, off []float64, err error) {
	switches, stop, err := l.fleet(ctx, fmt.Sprintf("bench%d:", instances), instances)
	if err != nil {
		return nil, nil, err
	}
	defer stop()
	first := switches[0]
	// all waits until every instance has acknowledged what holds.
	all := func(enabled bool) error {
		for begun := time.Now(); ; {
			r, err := first.Report(ctx)
			if err == nil && r.Enabled == enabled && r.Instances == instances && r.Acknowledged == instances {
				return nil
			}
			if time.Since(begun) > time.Minute {
				return fmt.Errorf("%d of %d instances, %d acknowledged: %w", r.Instances, instances, r.Acknowledged, err)
			}
		}
	}
	since := func(begun time.Time) float64 { return float64(time.Since(begun)) / float64(time.Millisecond) }
	for range rounds {
		begun := time.Now()
		if _, err := first.Enable(ctx, readonly.Change{Reason: "bench", Actor: "bench"}); err != nil {
			return nil, nil, err
		}
		if err := all(true); err != nil {
			return nil, nil, err
		}
		on = append(on, since(begun))
		begun = time.Now()
		if _, err := first.Disable(ctx, "bench"); err != nil {
			return nil, nil, err
		}
		if err := all(false); err != nil {
			return nil, nil, err
		}
		off = append(off, since(begun))
	}
	return on, off, nil
}
