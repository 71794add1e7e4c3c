package metrics

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Audit finds what would make a rule or a panel silent for ever, which Prometheus cannot know and Grafana does not
// tell: a selector of a series that nobody exports, or of a label that it has not; two sides of an operator whose
// labels never match; the rate of a gauge; a latency threshold, or a bound counted over, that is no bucket boundary with
// a finite one above. NewCapacity does it, too. The error joins all mistakes.
func (t Table) Audit() error {
	if err := t.validate(); err != nil {
		return err
	}
	t = t.withDefaults()
	a := newAudit(t)
	for _, r := range t.rules() {
		labels := a.expression(r.record+r.alert, r.expr)
		if r.record != "" {
			a.known[r.record] = exported{kind: Gauge, labels: labels}
		}
	}
	for _, p := range t.panels() {
		for _, q := range p.queries {
			a.expression("panel "+strconv.Quote(p.title), q.expr)
		}
	}
	for _, v := range variables() {
		if s, ok := a.known[v.series.Name]; !ok || !slices.Contains(s.labels, v.label) {
			a.fail("variable "+v.label, fmt.Errorf("%s has no label %s", v.series.Name, v.label))
		}
	}
	return errors.Join(a.errs...)
}

// exported is what there is to select, by the name in a selector.
type exported struct {
	kind   Kind // of what a sample is: a histogram's parts are counters
	labels []string
	bounds []float64 // of a bucket series
}

type audit struct {
	known map[string]exported
	errs  []error
}

// scraped are the labels that Prometheus adds to what it scrapes.
var scraped = []string{"instance", "job"}

func newAudit(t Table) *audit {
	a := &audit{known: map[string]exported{}}
	series := slices.Concat(Contract(), foreign())
	for _, m := range t.Rows { // with a row of its own may come a series of its own
		for _, s := range []Series{m.Series, m.Of} {
			if s.Name != "" {
				series = append(series, s)
			}
		}
	}
	for _, s := range series {
		labels := slices.Concat(s.Labels, scraped)
		if s.Kind != Histogram {
			a.known[s.Name] = exported{kind: s.Kind, labels: labels}
			continue
		}
		a.known[s.Name+"_count"] = exported{kind: Counter, labels: labels}
		a.known[s.Name+"_sum"] = exported{kind: Counter, labels: labels}
		a.known[s.Name+"_bucket"] = exported{kind: Counter, labels: append(labels, "le"), bounds: t.buckets(s)}
	}
	alerts := a.known[activeAlerts.Name]
	for _, m := range t.Rows {
		alerts.labels = append(alerts.labels, m.Scope...)
	}
	a.known[activeAlerts.Name] = alerts
	return a
}

func (a *audit) fail(where string, err error) {
	a.errs = append(a.errs, fmt.Errorf("metrics: %s: %w", where, err))
}

// expression returns the labels of what an expression makes.
func (a *audit) expression(where, text string) []string {
	v, err := a.read(text)
	if err != nil {
		a.fail(where, fmt.Errorf("in %s: %w", text, err))
	}
	return slices.Sorted(maps.Keys(v.labels))
}

// boundaries are the values that a matcher of le accepts, of a list of alternatives.
func boundaries(value string) ([]float64, error) {
	var bounds []float64
	for text := range strings.SplitSeq(value, "|") {
		bound, err := strconv.ParseFloat(strings.ReplaceAll(text, `\`, ""), 64)
		if err != nil {
			return nil, fmt.Errorf("le=%q is no list of numbers", value)
		}
		bounds = append(bounds, bound)
	}
	return bounds, nil
}
