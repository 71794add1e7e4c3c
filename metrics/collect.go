package metrics

import (
	"math"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
)

// points are numbers by key metric and scope. What they are depends on the statistic; counted ones only grow for as
// long as a process lives.
type points map[string]map[string][]float64

func (p points) at(id, scope string, n int) []float64 {
	scopes := p[id]
	if scopes == nil {
		scopes = map[string][]float64{}
		p[id] = scopes
	}
	if scopes[scope] == nil {
		scopes[scope] = make([]float64, n)
	}
	return scopes[scope]
}

// width is how many numbers a point of the metric has.
func (m KeyMetric) width() int {
	switch m.Statistic {
	case Quantile:
		return len(m.Series.Buckets) + 1
	case Share, OverPerMinute:
		return 2
	}
	return 1
}

// gauge says whether the metric is read off, not counted.
func (m KeyMetric) gauge() bool { return m.Series.Kind == Gauge }

// collector reduces what is gathered to what the table needs, and makes counters that only grow of those that may
// start again.
type collector struct {
	table   []KeyMetric
	wanted  map[string]bool
	last    map[string]raw // by child
	counted points
	primed  bool
}

// raw is a counter's or a histogram's state when it was last gathered.
type raw struct {
	count, sum float64
	buckets    []float64 // cumulative, +Inf last
}

func newCollector(table []KeyMetric) *collector {
	c := &collector{table: table, last: map[string]raw{}, counted: points{}, wanted: map[string]bool{}}
	for _, m := range table {
		c.wanted[m.Series.Name] = true
		if m.Of.Name != "" {
			c.wanted[m.Of.Name] = true
		}
	}
	return c
}

// collect returns fresh points. What was counted before its first call does not count.
func (c *collector) collect(families []*dto.MetricFamily) points {
	out := points{}
	by := map[string]*dto.MetricFamily{}
	for _, f := range families {
		if c.wanted[f.GetName()] {
			by[f.GetName()] = f
			c.count(f)
		}
	}
	c.primed = true
	for _, m := range c.table {
		switch f := by[m.Series.Name]; {
		case f == nil:
		case m.gauge():
			m.readGauge(out, f, by[m.Of.Name])
		case m.Statistic == RateOfOne:
			m.readOne(out, f)
		}
	}
	for id, scopes := range c.counted {
		for scope, numbers := range scopes {
			copy(out.at(id, scope, len(numbers)), numbers)
		}
	}
	return out
}

func (m KeyMetric) readGauge(out points, f, of *dto.MetricFamily) {
	divisors := map[string]float64{}
	for _, child := range of.GetMetric() {
		divisors[childKey(child)] = child.GetGauge().GetValue()
	}
	for _, child := range f.GetMetric() {
		value := child.GetGauge().GetValue()
		if !m.selects(child) {
			continue
		}
		if m.Statistic == LargestRatio {
			value /= divisors[childKey(child)]
		}
		if !(value >= 0) || math.IsInf(value, 1) {
			continue // a limit of 0 is none, and no utilization
		}
		p := out.at(m.ID, m.scopeOf(child), 1)
		p[0] = max(p[0], value)
	}
}

// readOne takes a counter as it is: it is a server's, which every instance shows alike.
func (m KeyMetric) readOne(out points, f *dto.MetricFamily) {
	for _, child := range f.GetMetric() {
		if r := rawOf(f.GetType(), child); r != nil {
			p := out.at(m.ID, m.scopeOf(child), 1)
			p[0] = max(p[0], r.count)
		}
	}
}

// count adds what a family's counters have gained since the last call.
func (c *collector) count(f *dto.MetricFamily) {
	for _, child := range f.GetMetric() {
		now := rawOf(f.GetType(), child)
		if now == nil {
			continue
		}
		key := f.GetName() + "\x1f" + childKey(child)
		before := c.last[key]
		c.last[key] = *now
		gained := now.since(before)
		for _, m := range c.table {
			if m.Series.Name != f.GetName() || !m.counts() || !m.considers(child) {
				continue
			}
			g := gained // a child that appears later began at zero
			if !c.primed {
				g = raw{buckets: make([]float64, len(now.buckets))}
			}
			m.add(c.counted, child, g)
		}
	}
}

func (m KeyMetric) add(counted points, child *dto.Metric, g raw) {
	p := counted.at(m.ID, m.scopeOf(child), m.width())
	switch m.Statistic {
	case Quantile:
		if len(g.buckets) == len(p) {
			for i, n := range g.buckets {
				p[i] += n
			}
		}
	case Share:
		if m.selects(child) {
			p[0] += g.count
		} else {
			p[1] += g.count
		}
	case OverPerMinute:
		if i := slices.Index(m.Series.Buckets, m.Param); i >= 0 && i < len(g.buckets) {
			p[0] += g.count
			p[1] += g.buckets[i]
		}
	default:
		p[0] += g.count
	}
}

func rawOf(t dto.MetricType, child *dto.Metric) *raw {
	switch t {
	case dto.MetricType_COUNTER:
		return &raw{count: child.GetCounter().GetValue()}
	case dto.MetricType_HISTOGRAM:
		h := child.GetHistogram()
		r := &raw{count: float64(h.GetSampleCount()), sum: h.GetSampleSum()}
		for _, b := range h.GetBucket() {
			if math.IsInf(b.GetUpperBound(), 1) {
				continue // there only when it has an exemplar
			}
			r.buckets = append(r.buckets, float64(b.GetCumulativeCount()))
		}
		r.buckets = append(r.buckets, r.count)
		return r
	}
	return nil
}

// since is the gain over before; a counter that is lower than before began again at zero.
func (r raw) since(before raw) raw {
	if r.count < before.count || len(r.buckets) != len(before.buckets) && before.buckets != nil {
		before = raw{}
	}
	g := raw{count: r.count - before.count, sum: r.sum - before.sum, buckets: slices.Clone(r.buckets)}
	for i := range before.buckets {
		g.buckets[i] -= before.buckets[i]
	}
	return g
}

func (m KeyMetric) selects(child *dto.Metric) bool {
	return m.Label == "" || (labelOf(child, m.Label) == m.Value) != m.Not
}

// considers says whether a child is among what counts at all.
func (m KeyMetric) considers(child *dto.Metric) bool {
	return len(m.Among) == 0 || slices.Contains(m.Among, labelOf(child, m.Label))
}

// scopeOf joins the scope's label values.
func (m KeyMetric) scopeOf(child *dto.Metric) string {
	values := make([]string, len(m.Scope))
	for i, name := range m.Scope {
		values[i] = labelOf(child, name)
	}
	return strings.Join(values, "\x1f")
}

// labels is the inverse of scopeOf.
func (m KeyMetric) labels(scope string) map[string]string {
	labels := map[string]string{}
	if len(m.Scope) == 0 {
		return labels
	}
	values := strings.Split(scope, "\x1f")
	for i, name := range m.Scope {
		if i < len(values) {
			labels[name] = values[i]
		}
	}
	return labels
}

func labelOf(child *dto.Metric, name string) string {
	for _, l := range child.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func childKey(child *dto.Metric) string {
	var b strings.Builder
	for _, l := range child.GetLabel() { // sorted by name
		b.WriteString(l.GetValue())
		b.WriteByte('\x1f')
	}
	return b.String()
}
