package metrics

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Table is the key metrics with their thresholds. Rules, dashboard, docs, alerts and instruments are made of it, and
// agree because of that: change it with [Table.Override] and give the same value to all of them.
type Table struct {
	// Rows are the key metrics, in the order of reports.
	Rows []KeyMetric
	// Window is what rates, quantiles and shares are taken over: two of Prometheus's scrapes at least. Zero means 5 min.
	Window time.Duration
	// Interval is the time between two evaluations of the rules, below 5 min. Zero means 30 s.
	Interval time.Duration
	// Native makes the histograms of what is given this table's Registerer native ones as well, of at most 160 buckets each,
	// which are begun anew after an hour at the soonest where that is too few. Rules, alerts and dashboard use the classic
	// buckets: a Prometheus that ingests native histograms has to be told to scrape both (scrape_classic_histograms, since
	// version 2.45), or every rule falls silent. Zero means classic buckets only.
	Native bool
	// OTelNames adds records of the database pools under the names of OpenTelemetry's semantic conventions, which were in
	// development when this was written: db_client_connection_count{db_client_connection_state="used"} and
	// db_client_connection_max. Zero means ours only.
	OTelNames bool
}

func (t Table) withDefaults() Table {
	if t.Window == 0 {
		t.Window = 5 * time.Minute
	}
	if t.Interval == 0 {
		t.Interval = 30 * time.Second
	}
	return t
}

// Row returns the key metric with that ID.
func (t Table) Row(id string) (KeyMetric, bool) {
	i := slices.IndexFunc(t.Rows, func(m KeyMetric) bool { return m.ID == id })
	if i < 0 {
		return KeyMetric{}, false
	}
	return t.Rows[i], true
}

// IDs are those of all rows, in their order.
func (t Table) IDs() []string {
	ids := make([]string, len(t.Rows))
	for i, m := range t.Rows {
		ids[i] = m.ID
	}
	return ids
}

// validate finds what would make an alert fire wrongly or never, in each row and between them.
func (t Table) validate() error {
	var errs []error
	if t.Window < 0 || t.Interval < 0 {
		errs = append(errs, fmt.Errorf("metrics: Table.Window %v and Interval %v must not be negative, 0 is the default", t.Window, t.Interval))
	}
	if t.Window%time.Millisecond != 0 || t.Interval%time.Millisecond != 0 {
		errs = append(errs, fmt.Errorf("metrics: Table.Window %v and Interval %v: Prometheus has no time below a millisecond, give whole ones", t.Window, t.Interval))
	}
	if t.Interval.Milliseconds() >= lookback {
		errs = append(errs, fmt.Errorf("metrics: Table.Interval %v: Prometheus forgets a record after 5 min, give less", t.Interval))
	}
	if t.Window > 0 && t.Interval > 0 && t.Window < 2*t.Interval {
		errs = append(errs, fmt.Errorf("metrics: Table.Window %v is shorter than two Intervals of %v, so that events may fall between evaluations: give a longer window or a shorter interval", t.Window, t.Interval))
	}
	seen, records := map[string]bool{}, map[string]bool{}
	for _, m := range t.Rows {
		if m.ID == "" || seen[m.ID] {
			errs = append(errs, fmt.Errorf("metrics: the table has the key metric %q twice or without a name: give each row an ID of its own", m.ID))
		}
		seen[m.ID] = true
		if name := t.record(m); records[name] {
			errs = append(errs, fmt.Errorf("metrics: key metric %s: another row has the record %s: give it a name of its own", m.ID, name))
		}
		records[t.record(m)] = true
		errs = append(errs, m.validate())
		if m.Unless == "" {
			continue
		}
		if other, ok := t.Row(m.Unless); !ok || !slices.Equal(other.Scope, m.Scope) {
			errs = append(errs, fmt.Errorf("metrics: key metric %s: Unless is %q, name a row of the same scope", m.ID, m.Unless))
		}
	}
	return errors.Join(errs...)
}

// Registerer wraps reg so that the packages, when they are given it, make their histograms with this table's buckets:
// an overridden latency threshold needs a boundary of its own. What else wraps reg, such as
// prometheus.WrapRegistererWith, must be inside.
func (t Table) Registerer(reg prometheus.Registerer) prometheus.Registerer {
	if reg == nil {
		return nil
	}
	return &tableRegisterer{reg, t}
}

type tableRegisterer struct {
	prometheus.Registerer
	table Table
}

// buckets are those of a series of the contract, as the rows have them.
func (t Table) buckets(s Series) []float64 {
	for _, m := range t.Rows {
		if m.Series.Name == s.Name {
			return m.Series.Buckets
		}
	}
	return s.Buckets
}
