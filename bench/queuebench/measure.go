package queuebench

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"time"

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
var Modules = []string{"github.com/hibiken/asynq", "github.com/redis/go-redis/v9", "github.com/riverqueue/river"}

// Measure returns the tables, and facts about the servers.
func Measure(ctx context.Context, o *Options) (tables []report.Table, facts []string, err error) {
	lab := &lab{quick: o.Quick}
	defer func() {
		if e := lab.close(); err == nil {
			err = e
		}
	}()
	for _, t := range []struct {
		title, note string
		fill        func(context.Context) ([]report.Row, error)
	}{
		{"Jobs that do nothing", workNote, lab.work},
		{"Enqueue", enqueueNote, lab.enqueue},
		{"Pick-up", pickupNote, lab.pickup},
	} {
		if o.Only != nil && !o.Only.MatchString(t.title) {
			continue
		}
		begun := time.Now()
		rows, err := t.fill(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", t.title, err)
		}
		fmt.Fprintf(os.Stderr, "%s: measured in %s\n", t.title, report.Since(time.Since(begun)))
		tables = append(tables, report.Table{Title: t.title, Note: t.note, Rows: rows})
	}
	return tables, lab.facts(), nil
}
