package metrics

import (
	"cmp"
	"slices"
	"time"
)

// Alert is one alert, with the fields of Prometheus's /api/v1/alerts and some more.
type Alert struct {
	// Labels are alertname, severity, metric and the metric's scope.
	Labels map[string]string `json:"labels"`
	// Annotations are summary and runbook.
	Annotations map[string]string `json:"annotations"`
	// State is pending until the threshold's time has passed, then firing, then inactive.
	State string `json:"state"`
	// ActiveAt is since when the value has been past the threshold.
	ActiveAt time.Time `json:"activeAt"`
	// FiredAt is since when it has been firing, or null.
	FiredAt *time.Time `json:"firedAt"`
	// KeepFiringSince is since when the value is no longer past the threshold while the alert is kept firing, or null.
	KeepFiringSince *time.Time `json:"keepFiringSince"`
	// ResolvedAt is when it ended, or null.
	ResolvedAt *time.Time `json:"resolvedAt"`
	// Inhibited is true for a warning while the critical alert of the same metric and scope fires: nobody is notified.
	Inhibited bool `json:"inhibited"`
	// Value is the metric's value when it was last past the threshold, or past Clear while it fires, in Unit.
	Value float64 `json:"value"`
	// Threshold is what Value must be past for the alert to begin, in Unit.
	Threshold float64 `json:"threshold"`
	// Clear is what Value must no longer be past for it to end once it fires, in Unit, or null where that is Threshold.
	Clear *float64 `json:"clear"`
	// Unit is of Value, Threshold and Clear.
	Unit Unit `json:"unit"`
	// Severity repeats the label.
	Severity Level `json:"severity"`
	// Scope is fleet or instance.
	Scope string `json:"scope"`
	// Why is what is behind it, or null where its series does not tell, or has not yet.
	Why *Why `json:"why"`
}

// list is what the report shows of those that are pending or firing: firing before pending, critical before warning.
func (a alerts) list(reach string) []Alert {
	return a.choose(reach, func(x *activeAlert) bool { return x.state != inactive })
}

// ended is what the report shows of those that have ended lately, the latest first.
func (a alerts) ended(reach string) []Alert {
	list := a.choose(reach, func(x *activeAlert) bool { return x.state == inactive })
	slices.SortStableFunc(list, func(x, y Alert) int { return y.ResolvedAt.Compare(*x.ResolvedAt) })
	return list
}

// told is what is notified of: what fires, and what has fired lately, also where it is pending anew.
func (a alerts) told(reach string) []Alert {
	known := make(alerts, len(a))
	for key, x := range a {
		if x.state == pending && x.before != nil {
			x = x.before
		}
		known[key] = x
	}
	return known.choose(reach, func(x *activeAlert) bool { return x.state != pending })
}

func (a alerts) choose(reach string, shown func(*activeAlert) bool) []Alert {
	list := []Alert{}
	for key, x := range a {
		if shown(x) {
			list = append(list, a.alert(key, x, reach))
		}
	}
	slices.SortFunc(list, func(x, y Alert) int {
		return cmp.Or(
			cmp.Compare(x.State, y.State), // firing < inactive < pending
			cmp.Compare(y.Severity, x.Severity),
			cmp.Compare(x.Labels["metric"], y.Labels["metric"]),
			cmp.Compare(x.Annotations["summary"], y.Annotations["summary"]),
		)
	})
	return list
}

func (a alerts) alert(key alertKey, x *activeAlert, reach string) Alert {
	m := x.metric
	labels := m.labels(key.scope)
	summary := m.summary(x.threshold, func(name string) string { return labels[name] })
	labels["alertname"] = m.Alert
	labels["severity"] = x.threshold.Severity.String()
	labels["metric"] = m.ID
	return Alert{
		Labels: labels, Annotations: map[string]string{"summary": summary, "runbook": m.Step},
		State: x.state.String(), ActiveAt: x.since, FiredAt: orNull(x.fired), KeepFiringSince: orNull(x.keeping), ResolvedAt: orNull(x.resolved),
		Inhibited: a.inhibited(key), Value: x.value, Threshold: x.threshold.Value, Clear: clearOf(x.threshold.Clear),
		Unit: m.Unit, Severity: x.threshold.Severity, Scope: reach,
	}
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
