package sessionbench

import (
	"context"
	"fmt"
	"os"
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
	"github.com/alexedwards/scs/v2", "github.com/alexedwards/scs/goredisstore", "github.com/alexedwards/scs/redisstore", "github.com/redis/go-redis/v9",
}

// Measure returns the tables, and facts about the servers.
func Measure(ctx context.Context, o *Options) (tables []report.Table, facts []string, err error) {
	l := &lab{quick: o.Quick}
	defer func() {
		if e := l.close(); err == nil {
			err = e
		}
	}()
	for _, t := range []struct {
		title, note string
		fill        func(context.Context) ([]report.Row, error)
	}{
		{"Requests with a session", requestsNote, l.requests},
		{"Round trips of a request", tripsNote, l.trips},
		{"Read-only middleware", gateNote, l.gate},
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
	return tables, []string{"Redis: one server, over loopback, nothing written to disk."}, nil
}

func (l *lab) run(ctx context.Context, contenders ...pairs.Contender) ([]pairs.Result, error) {
	o := &pairs.Options{Total: 4 * time.Second}
	if l.quick {
		o.Total /= 8
	}
	return pairs.Run(ctx, o, contenders...)
}

func figures(r pairs.Result) string { return report.Time(r.Time()) + ", " + report.Cost(r) }
