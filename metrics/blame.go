package metrics

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
)

// blame is what one instance knows of the causes of one key metric's value in one scope, over its window.
type blame struct {
	tally
	// Top are the first by what is past the thresholds, at most toldCulprits.
	Top []culprit `json:"top"`
}

// tally counts events, and those past the warning and past the critical threshold.
type tally struct {
	Events   float64 `json:"n"`
	Warning  float64 `json:"w"`
	Critical float64 `json:"c"`
}

// culprit is one label value's part.
type culprit struct {
	Name string `json:"name"`
	tally
	Trace string `json:"trace,omitempty"`
}

const (
	toldCulprits = 5
	maxBlames    = 48 // key metrics and scopes in one snapshot
	maxCulprits  = 1000
	maxName      = 256
	traceIDLabel = "trace_id"

	eventUnit = "events"
)

func (t tally) past(severity Level) float64 {
	if severity == Critical {
		return t.Critical
	}
	return t.Warning
}

// blameSource says by which labels of which series the causes of a series' key metrics are told apart.
type blameSource struct {
	by     string // for people
	labels []string
	series *Series // another one, whose seconds are counted
	gauge  bool    // the values themselves
	shared bool    // all instances see the same
}

func (s blameSource) unit() string {
	switch {
	case s.series != nil:
		return "seconds of queries"
	case s.gauge:
		return "jobs that wait"
	}
	return eventUnit
}

// scope is a child's. A queue is compared with the others.
func (s blameSource) scope(m KeyMetric, child *dto.Metric) string {
	if s.gauge {
		return ""
	}
	return m.scopeOf(child)
}

// A pool is full of the queries that hold its connections.
var blameSources = map[string]blameSource{
	HTTPRequestDuration.Name: {by: "route", labels: []string{"method", "route"}},
	DBQueryDuration.Name:     {by: "operation", labels: []string{"operation"}},
	DBPoolAcquired.Name:      {by: "operation", labels: []string{"operation"}, series: &DBQueryDuration},
	DBPoolAcquireWait.Name:   {by: "operation", labels: []string{"operation"}, series: &DBQueryDuration},
	JobDuration.Name:         {by: "type", labels: []string{"type"}},
	CacheRequests.Name:       {by: "cache", labels: []string{"cache"}},
	QueueTasks.Name:          {by: "queue", labels: []string{"queue"}, gauge: true, shared: true},
}

func blameKey(metric, scope string) string { return metric + "\x1e" + scope }

// blamer remembers counters a window long, in tenths of it.
type blamer struct {
	table  []KeyMetric
	window time.Duration
	past   []blameMark
}

type blameMark struct {
	at     time.Time
	counts map[string]map[string]tally // by key, then by name
}

func newBlamer(table []KeyMetric, window time.Duration) *blamer {
	return &blamer{table: table, window: window}
}

func (b *blamer) criticalOf(id string) float64 {
	for _, m := range b.table {
		if m.ID == id && m.HasThresholds() {
			return m.Critical
		}
	}
	return unknown
}

// blame tells the causes of the wanted key metrics. It is cheap while none is.
func (b *blamer) blame(now time.Time, by map[string]*dto.MetricFamily, wanted map[string]bool) map[string]blame {
	mark := len(b.past) == 0 || now.Sub(b.past[len(b.past)-1].at) >= b.window/10
	if !mark && len(wanted) == 0 {
		return nil
	}
	counts, traces := map[string]map[string]tally{}, map[string]string{}
	for _, m := range b.table {
		if source, ok := blameSources[m.Series.Name]; ok && m.HasThresholds() && (wanted[m.ID] || mark && !source.gauge) {
			m.count(by, source, counts, traces)
		}
	}
	if mark {
		b.past = append(b.past, blameMark{now, counts})
		for len(b.past) > 2 && now.Sub(b.past[1].at) >= b.window {
			b.past = b.past[1:]
		}
	}
	out := map[string]blame{}
	for _, m := range b.table {
		for _, key := range slices.Sorted(maps.Keys(counts)) {
			if id, _ := splitKey(key); id == m.ID && wanted[m.ID] && len(out) < maxBlames {
				out[key] = tell(counts[key], b.before(m, key), key, traces)
			}
		}
	}
	return out
}

// before is what was counted a window ago. What is not counted, but is so now, has none.
func (b *blamer) before(m KeyMetric, key string) map[string]tally {
	if blameSources[m.Series.Name].gauge {
		return nil
	}
	return b.past[0].counts[key]
}

// count adds up a metric's events by name.
func (m KeyMetric) count(by map[string]*dto.MetricFamily, source blameSource, counts map[string]map[string]tally, traces map[string]string) {
	f := by[m.Series.Name]
	if source.series != nil {
		f = by[source.series.Name]
	}
	for _, child := range f.GetMetric() {
		if source.gauge && !m.selects(child) || source.series == nil && !m.considers(child) {
			continue
		}
		key, name := blameKey(m.ID, source.scope(m, child)), culpritName(child, source.labels)
		names := counts[key]
		if names == nil {
			names = map[string]tally{}
			counts[key] = names
		}
		t, seen := names[name]
		if !seen && len(names) >= maxCulprits {
			name = "other"
			t = names[name]
		}
		switch {
		case source.series != nil:
			seconds := child.GetHistogram().GetSampleSum()
			t.add(seconds, seconds, seconds)
		case source.gauge:
			n := gaugeOf(child)
			t.add(n, n, n)
		default:
			m.judge(&t, child)
		}
		names[name] = t
		if trace := m.trace(child); trace != "" {
			traces[key+"\x1e"+name] = trace
		}
	}
}

func (t *tally) add(events, warning, critical float64) {
	t.Events, t.Warning, t.Critical = t.Events+events, t.Warning+warning, t.Critical+critical
}

// judge counts one child's events by the metric's thresholds.
func (m KeyMetric) judge(t *tally, child *dto.Metric) {
	h := child.GetHistogram()
	events := float64(h.GetSampleCount()) + child.GetCounter().GetValue()
	above := func(bound float64) float64 {
		for _, b := range h.GetBucket() {
			if b.GetUpperBound() >= bound {
				return events - float64(b.GetCumulativeCount())
			}
		}
		return 0
	}
	switch m.Statistic {
	case Quantile:
		t.add(events, above(m.Warning), above(m.Critical))
	case OverPerMinute:
		over := above(m.Param)
		t.add(events, over, over)
	case Share:
		if m.selects(child) == (m.Op == Above) {
			t.add(events, events, events)
		} else {
			t.add(events, 0, 0)
		}
	}
}

// trace finds the latest exemplar of an event past the warning threshold.
func (m KeyMetric) trace(child *dto.Metric) string {
	bound := m.Warning
	switch m.Statistic {
	case OverPerMinute:
		bound = m.Param
	case Share:
		if m.selects(child) != (m.Op == Above) {
			return ""
		}
		bound = -1
	}
	var latest *dto.Exemplar
	for _, b := range child.GetHistogram().GetBucket() {
		if e := b.GetExemplar(); e != nil && e.GetValue() > bound && (latest == nil || e.GetTimestamp().AsTime().After(latest.GetTimestamp().AsTime())) {
			latest = e
		}
	}
	for _, l := range latest.GetLabel() {
		if l.GetName() == traceIDLabel && len(l.GetValue()) <= maxName {
			return l.GetValue()
		}
	}
	return ""
}

// tell keeps the first few.
func tell(now, before map[string]tally, key string, traces map[string]string) blame {
	var b blame
	for name, n := range now {
		was := before[name]
		c := culprit{Name: name, tally: tally{max(0, n.Events-was.Events), max(0, n.Warning-was.Warning), max(0, n.Critical-was.Critical)}}
		b.add(c.Events, c.Warning, c.Critical)
		if c.Warning > 0 {
			c.Trace = traces[key+"\x1e"+name]
			b.Top = append(b.Top, c)
		}
	}
	slices.SortFunc(b.Top, func(x, y culprit) int {
		return cmp.Or(-cmp.Compare(x.Critical, y.Critical), -cmp.Compare(x.Warning, y.Warning), cmp.Compare(x.Name, y.Name))
	})
	b.Top = b.Top[:min(toldCulprits, len(b.Top))]
	return b
}

func culpritName(child *dto.Metric, labels []string) string {
	var values []string
	for _, name := range labels {
		v := labelOf(child, name)
		if n := len(values); n > 0 && strings.HasPrefix(v, values[n-1]+" ") { // a route's pattern may begin with its method
			values = values[:n-1]
		}
		values = append(values, v)
	}
	name := strings.Join(values, " ")
	return strings.ToValidUTF8(name[:min(maxName, len(name))], "")
}

func checkBlame(all map[string]blame) error {
	if len(all) > maxBlames {
		return fmt.Errorf("metrics: a snapshot tells the causes of %d values, at most %d are read", len(all), maxBlames)
	}
	for key, b := range all {
		if len(b.Top) > toldCulprits || !b.plausible() {
			return fmt.Errorf("metrics: a snapshot tells impossible causes of %.64q", key)
		}
		for _, c := range b.Top {
			if len(c.Name) > maxName || len(c.Trace) > maxName || !utf8.ValidString(c.Trace) || !c.plausible() {
				return fmt.Errorf("metrics: a snapshot tells an impossible cause of %.64q", key)
			}
		}
	}
	return nil
}

// plausible is false for what no counting yields, -1 for unknown included.
func (t tally) plausible() bool {
	for _, n := range []float64{t.Events, t.Warning, t.Critical} {
		if !(n >= 0 && n <= largest) {
			return false
		}
	}
	return true
}
