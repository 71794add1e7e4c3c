package main

import (
	"context"
	"fmt"
	"time"

	"github.com/scaleaware/scaleaware/bench/cachebench"
	"github.com/scaleaware/scaleaware/bench/dbsplitbench"
	"github.com/scaleaware/scaleaware/bench/internal/plot"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/bench/queuebench"
	"github.com/scaleaware/scaleaware/bench/sessionbench"
)

// drawCurves measures how costs grow and draws a picture of each into the folder.
func drawCurves(ctx context.Context, folder string, o *dbsplitbench.Options) error {
	before := report.Load()
	for _, measure := range []func() ([]plot.Chart, error){
		func() ([]plot.Chart, error) { return dbsplitbench.Curves(ctx, o) },
		func() ([]plot.Chart, error) { return cachebench.Curves(ctx, &cachebench.Options{Quick: o.Quick}) },
		func() ([]plot.Chart, error) { return queuebench.Curves(ctx, &queuebench.Options{Quick: o.Quick}) },
		func() ([]plot.Chart, error) { return sessionbench.Curves(ctx, &sessionbench.Options{Quick: o.Quick}) },
	} {
		charts, err := measure()
		if err != nil {
			return err
		}
		for _, c := range charts {
			c.Note = fmt.Sprintf("%s, make curves; %s; load of the machine before: %s", time.Now().UTC().Format(time.DateOnly), report.Machine(), before)
			if err := c.Write(folder); err != nil {
				return err
			}
			fmt.Printf("%s: %s.svg\n", c.Title, c.Name)
			for _, s := range c.Series {
				fmt.Printf("  %-16s", s.Name)
				for _, p := range s.Points {
					fmt.Printf("  %.0f: %s", p.X, plot.Figure(p.Y))
				}
				fmt.Println()
			}
		}
	}
	return nil
}
