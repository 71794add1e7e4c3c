package dbsplitbench

import (
	"context"
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
	// Module is the folder of the module whose packages' benchmarks are run.
	Module string
}

// Modules are those whose versions matter.
var Modules = []string{"github.com/jackc/pgx/v5", "github.com/bxcodec/dbresolver/v2"}

// scaled is how long something is measured.
func (o *Options) scaled(d time.Duration) time.Duration {
	if o.Quick {
		return d / 8
	}
	return d
}

// times is how often something slow is repeated.
func (o *Options) times(n int) int {
	if o.Quick {
		return 1
	}
	return n
}

// Measure returns the tables, and facts about the servers.
func Measure(ctx context.Context, o *Options) (tables []report.Table, facts []string, err error) {
	lab := &lab{opts: o}
	defer func() {
		if e := lab.close(); err == nil {
			err = e
		}
	}()
	tables, err = report.Measure(ctx, o.Only,
		report.Subject{Title: "Routing decision", Note: decisionNote, Rows: lab.decision},
		report.Subject{Title: "One read", Note: readNote, Rows: lab.reads},
		report.Subject{Title: "One read from another machine", Note: awayNote, Rows: lab.readsAway},
		report.Subject{Title: "One write", Note: writeNote, Rows: lab.writes},
		report.Subject{Title: "Round trips", Note: tripsNote, Rows: lab.roundTrips},
		report.Subject{Title: "Reads in parallel", Note: parallelNote, Rows: lab.parallel},
		report.Subject{Title: "Balance", Note: balanceNote, Rows: lab.balance},
		report.Subject{Title: "Reads on replicas for sessions that write", Note: shareNote, Rows: lab.share},
		report.Subject{Title: "Replica lost", Note: lostNote, Rows: lab.lostReplica},
		report.Subject{Title: "Promotion", Note: promotionNote, Rows: lab.promotion})
	if err != nil {
		return nil, nil, err
	}
	return tables, lab.facts(ctx), nil
}
