package metrics

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Why says what is behind an alert.
type Why struct {
	// Text is one line of it for people.
	Text string `json:"text"`
	// Events are those of the window: requests, queries, jobs, look-ups, or what Unit says.
	Events float64 `json:"events"`
	// Past are those of them that count against the metric, such as the ones slower than the threshold.
	Past float64 `json:"past"`
	// Share is Past over Events, or null where all of them count.
	Share *float64 `json:"share"`
	// Unit is what events are counted in: events, seconds of queries, or jobs that wait.
	Unit string `json:"unit"`
	// By is what the top is of: route, operation, type, cache or queue.
	By string `json:"by"`
	// Top are the three that contribute most to Past. Each instance tells its first five, so that one that is small
	// everywhere can be missing.
	Top []Contribution `json:"top"`
	// TraceID is of a recent event past the threshold, of the first of Top that has one; null where nothing is traced.
	TraceID *string `json:"trace_id"`
}

// Contribution is one route's, operation's, job type's, cache's or queue's part.
type Contribution struct {
	// Name is the label's value.
	Name string `json:"name"`
	// Events and Past are its own.
	Events float64 `json:"events"`
	Past   float64 `json:"past"`
	// Share is its part of all that is past the threshold.
	Share float64 `json:"share"`
}

// shownCulprits of a report, of the toldCulprits of each instance.
const shownCulprits = 3

// explain adds the causes.
func (a *Alert) explain(table []KeyMetric, all map[string]*vitals) {
	for _, m := range table {
		if m.ID != a.Labels["metric"] {
			continue
		}
		scope := make([]string, len(m.Scope))
		for i, name := range m.Scope {
			scope[i] = a.Labels[name]
		}
		a.Why = explain(m, a.Severity, strings.Join(scope, "\x1f"), all)
	}
}

// explain adds up what the instances tell of one alert.
func explain(m KeyMetric, severity Level, scope string, all map[string]*vitals) *Why {
	source, ok := blameSources[m.Series.Name]
	if !ok {
		return nil
	}
	if source.gauge {
		scope = ""
	}
	w := &Why{Unit: source.unit(), By: source.by, Top: []Contribution{}}
	past := map[string]*Contribution{}
	traces := map[string]string{}
	for _, instance := range slices.Sorted(maps.Keys(all)) {
		b, ok := all[instance].Blame[blameKey(m.ID, scope)]
		if !ok {
			continue
		}
		if source.shared { // all see the same
			w.Events, w.Past = max(w.Events, b.Events), max(w.Past, b.past(severity))
		} else {
			w.Events, w.Past = w.Events+b.Events, w.Past+b.past(severity)
		}
		for _, c := range b.Top {
			sum := past[c.Name]
			if sum == nil {
				sum = &Contribution{Name: c.Name}
				past[c.Name] = sum
			}
			if source.shared {
				sum.Events, sum.Past = max(sum.Events, c.Events), max(sum.Past, c.past(severity))
			} else {
				sum.Events, sum.Past = sum.Events+c.Events, sum.Past+c.past(severity)
			}
			if c.Trace != "" {
				traces[c.Name] = c.Trace
			}
		}
	}
	if w.Events == 0 {
		return nil
	}
	if w.Unit == eventUnit {
		share := w.Past / w.Events
		w.Share = &share
	}
	for _, c := range past {
		if c.Past > 0 {
			c.Share = c.Past / w.Past
			w.Top = append(w.Top, *c)
		}
	}
	slices.SortFunc(w.Top, func(a, b Contribution) int {
		return cmp.Or(-cmp.Compare(a.Past, b.Past), cmp.Compare(a.Name, b.Name))
	})
	w.Top = w.Top[:min(shownCulprits, len(w.Top))]
	for _, c := range w.Top {
		if trace := traces[c.Name]; trace != "" {
			w.TraceID = &trace
			break
		}
	}
	w.Text = w.words(m, severity)
	return w
}

func (w *Why) words(m KeyMetric, severity Level) string {
	var b strings.Builder
	if w.Unit == eventUnit {
		fmt.Fprintf(&b, "%.3g %% of %s events %s", 100**w.Share, figures(w.Events), m.against(severity))
	} else {
		fmt.Fprintf(&b, "%s %s in all", figures(w.Events), w.Unit)
	}
	for i, c := range w.Top {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%s %.0f %%", sep, c.Name, 100*c.Share)
	}
	return b.String()
}

// against says what makes an event count against the metric.
func (m KeyMetric) against(severity Level) string {
	switch m.Statistic {
	case Quantile:
		if severity == Critical {
			return fmt.Sprintf("took longer than %g s", m.Critical)
		}
		return fmt.Sprintf("took longer than %g s", m.Warning)
	case OverPerMinute:
		return fmt.Sprintf("took longer than %g s", m.Param)
	}
	if (m.Op == Below) != m.Not {
		return fmt.Sprintf("are not %s %s", m.Label, m.Value)
	}
	return fmt.Sprintf("are %s %s", m.Label, m.Value)
}
