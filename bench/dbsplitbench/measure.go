package dbsplitbench

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
	for _, t := range []struct {
		title, note string
		fill        func(context.Context) ([]report.Row, error)
	}{
		{"Routing decision", decisionNote, lab.decision},
		{"One read", readNote, lab.reads},
		{"One write", writeNote, lab.writes},
		{"Round trips", tripsNote, lab.roundTrips},
		{"Reads in parallel", parallelNote, lab.parallel},
		{"Balance", balanceNote, lab.balance},
		{"Reads on replicas for sessions that write", shareNote, lab.share},
		{"Replica lost", lostNote, lab.lostReplica},
		{"Promotion", promotionNote, lab.promotion},
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
	return tables, lab.facts(ctx), nil
}
