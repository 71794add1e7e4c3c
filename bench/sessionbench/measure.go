package sessionbench

import (
	"context"
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
	tables, err = report.Measure(ctx, o.Only,
		report.Subject{Title: "Requests with a session", Note: requestsNote, Rows: l.requests},
		report.Subject{Title: "Round trips of a request", Note: tripsNote, Rows: l.trips},
		report.Subject{Title: "Parallel writes of one session", Note: contentionNote, Rows: l.contention},
		report.Subject{Title: "Read-only middleware", Note: gateNote, Rows: l.gate},
		report.Subject{Title: "Read-only mode, from the call to each instance", Note: propagationNote, Rows: l.propagation},
		report.Subject{Title: "Probes while nothing answers", Note: probesNote, Rows: l.probes})
	if err != nil {
		return nil, nil, err
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
