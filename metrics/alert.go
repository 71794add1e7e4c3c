package metrics

import (
	"cmp"
	"slices"
	"time"
)

// Alert is one alert that is pending or firing, with the fields of Prometheus's /api/v1/alerts and some more.
type Alert struct {
	// Labels are alertname, severity, metric and the metric's scope.
	Labels map[string]string `json:"labels"`
	// Annotations are summary and runbook.
	Annotations map[string]string `json:"annotations"`
	// State is pending until the threshold's time has passed, then firing.
	State string `json:"state"`
	// ActiveAt is since when the value has been past the threshold.
	ActiveAt time.Time `json:"activeAt"`
	// Value is the metric's value now, in Unit.
	Value float64 `json:"value"`
	// Threshold is what Value is past, in Unit.
	Threshold float64 `json:"threshold"`
	// Unit is of Value and Threshold.
	Unit Unit `json:"unit"`
	// Severity repeats the label.
	Severity Level `json:"severity"`
	// Scope is fleet or instance.
	Scope string `json:"scope"`
	// Why is what is behind it, or null where its series does not tell, or has not yet.
	Why *Why `json:"why"`
}

type alertKey struct {
	metric   string
	severity Level
	scope    string
}

type activeAlert struct {
	metric    KeyMetric
	threshold Threshold
	since     time.Time
	value     float64
	firing    bool
}

// alerts are the pending and firing ones, with Prometheus's semantics: the first tick past the threshold is pending,
// it fires when it has been past it at every tick for the threshold's time, and one tick without, or without a value,
// forgets it.
type alerts map[alertKey]*activeAlert

func (a alerts) tick(now time.Time, table []KeyMetric, values map[string]map[string]float64) {
	seen := map[alertKey]bool{}
	for _, m := range table {
		for _, t := range m.Thresholds() {
			for scope, value := range values[m.ID] {
				if !m.Op.past(value, t.Value) { // false for NaN
					continue
				}
				key := alertKey{m.ID, t.Severity, scope}
				seen[key] = true
				active := a[key]
				if active == nil {
					active = &activeAlert{metric: m, threshold: t, since: now}
					a[key] = active
				}
				active.value = value
				active.firing = active.firing || now.Sub(active.since) >= t.For
			}
		}
	}
	for key := range a {
		if !seen[key] {
			delete(a, key)
		}
	}
}

// list is what the report shows: firing before pending, critical before warning.
func (a alerts) list(reach string) []Alert {
	list := []Alert{}
	for key, active := range a {
		m := active.metric
		labels := m.labels(key.scope)
		summary := m.summary(active.threshold, func(name string) string { return labels[name] })
		labels["alertname"] = m.Alert
		labels["severity"] = active.threshold.Severity.String()
		labels["metric"] = m.ID
		state := "pending"
		if active.firing {
			state = "firing"
		}
		list = append(list, Alert{
			Labels: labels, Annotations: map[string]string{"summary": summary, "runbook": m.Step},
			State: state, ActiveAt: active.since, Value: active.value, Threshold: active.threshold.Value,
			Unit: m.Unit, Severity: active.threshold.Severity, Scope: reach,
		})
	}
	slices.SortFunc(list, func(x, y Alert) int {
		return cmp.Or(
			cmp.Compare(x.State, y.State), // firing < pending
			cmp.Compare(y.Severity, x.Severity),
			cmp.Compare(x.Labels["metric"], y.Labels["metric"]),
			cmp.Compare(x.Annotations["summary"], y.Annotations["summary"]),
		)
	})
	return list
}
