package queuebench

import (
	"context"
	"regexp"

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
	tables, err = report.Measure(ctx, o.Only,
		report.Subject{Title: "Jobs that do nothing", Note: workNote, Rows: lab.work},
		report.Subject{Title: "Jobs one at a time", Note: aloneNote, Rows: lab.alone},
		report.Subject{Title: "Beside a limited queue", Note: besideNote, Rows: lab.beside},
		report.Subject{Title: "Enqueue", Note: enqueueNote, Rows: lab.enqueue},
		report.Subject{Title: "Pick-up", Note: pickupNote, Rows: lab.pickup},
		report.Subject{Title: "Limits", Note: limitsNote, Rows: lab.limits},
		report.Subject{Title: "Autoscaler", Note: scaleNote, Rows: lab.scaling},
		report.Subject{Title: "All jobs of a queue", Note: bulkNote, Rows: lab.bulk})
	if err != nil {
		return nil, nil, err
	}
	return tables, lab.facts(), nil
}
