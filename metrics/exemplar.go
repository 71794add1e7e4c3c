package metrics

import (
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	traceLabel = "trace_id" // OpenMetrics's and OpenTelemetry's word
	maxTrace   = 64         // far below the 128 characters that an exemplar may have
)

// ObserveTraced observes value, and keeps trace beside it as the exemplar of its bucket. Without a trace, or with one
// that cannot be a label, it only observes: a bad trace must not lose the observation.
func ObserveTraced(o prometheus.Observer, value float64, trace string) {
	if trace != "" && len(trace) <= maxTrace && utf8.ValidString(trace) {
		if e, ok := o.(prometheus.ExemplarObserver); ok {
			e.ObserveWithExemplar(value, prometheus.Labels{traceLabel: trace})
			return
		}
	}
	o.Observe(value)
}

// Exemplar is one event that a histogram remembers: where to look first when a threshold is crossed.
type Exemplar struct {
	// Trace is the event's trace id.
	Trace string
	// Labels are the series' labels, such as the route.
	Labels map[string]string
	// Value is what was observed, in the series' unit.
	Value float64
	// Time is when.
	Time time.Time
}

// LastExemplar finds, in what a registry holds, the latest event that counts against the metric: one slower than the
// warning threshold, or one of the selected outcome. ok is false where there is none, or nothing is traced.
func (m KeyMetric) LastExemplar(families []*dto.MetricFamily) (last Exemplar, ok bool) {
	bound := 0.0
	switch m.Statistic {
	case Quantile:
		bound = m.Warning
	case OverPerMinute:
		bound = m.Param
	case Share:
	default:
		return Exemplar{}, false
	}
	for _, f := range families {
		if f.GetName() != m.Series.Name {
			continue
		}
		for _, child := range f.GetMetric() {
			if m.Statistic == Share && m.selects(child) == m.Not {
				continue // of a share that should be large, those outside it are to blame
			}
			for _, b := range child.GetHistogram().GetBucket() {
				e := b.GetExemplar()
				if e == nil || e.GetValue() <= bound && m.Statistic != Share || ok && !e.GetTimestamp().AsTime().After(last.Time) {
					continue
				}
				last, ok = Exemplar{Labels: labelsOf(child), Value: e.GetValue(), Time: e.GetTimestamp().AsTime()}, true
				for _, l := range e.GetLabel() {
					if l.GetName() == traceLabel {
						last.Trace = l.GetValue()
					}
				}
			}
		}
	}
	return last, ok
}

func labelsOf(child *dto.Metric) map[string]string {
	labels := make(map[string]string, len(child.GetLabel()))
	for _, l := range child.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	return labels
}
