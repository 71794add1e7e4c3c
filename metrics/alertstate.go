package metrics

import "time"

// resolvedRetention is how long an alert that has fired is still known after its end.
const resolvedRetention = 15 * time.Minute

type alertState int

const (
	pending alertState = iota
	firing
	inactive
)

// String is Prometheus's word.
func (s alertState) String() string { return [...]string{"pending", "firing", "inactive"}[s] }

type alertKey struct {
	metric   string
	severity Level
	scope    string
}

type activeAlert struct {
	metric    *KeyMetric
	threshold Threshold
	state     alertState
	value     float64
	since     time.Time // of the first tick past the threshold
	due       time.Time // of the last one
	fired     time.Time
	keeping   time.Time // of the first tick not past it, while it is kept firing
	resolved  time.Time
	before    *activeAlert // which has ended, while this one is pending: its end may not have been told
}

// alerts are the pending and firing ones, and those that have fired lately, with Prometheus's semantics: the first tick
// past the threshold is pending, it fires when it has been past it at every tick for the threshold's time, one tick
// without, or without a value, forgets it, and one that has fired goes on while it is past the threshold's Clear, and
// then for KeepFiringFor.
type alerts map[alertKey]*activeAlert

// tick takes the values of now. They are all known before the first alert is looked at, as Prometheus evaluates records
// before the rules below them.
func (a alerts) tick(now time.Time, table []KeyMetric, values results) {
	for i := range table {
		m := &table[i]
		if !m.HasThresholds() {
			continue
		}
		for scope, value := range values[m.ID] {
			for severity := Warning; severity <= Critical; severity++ {
				t, key := m.threshold(severity), alertKey{m.ID, severity, scope}
				if m.alerts(a.bound(t, key), value, scope, values) {
					a.due(now, key, m, t).value = value
				}
			}
		}
	}
	for key, x := range a {
		switch {
		case x.step(now):
		case x.before != nil && x.before.step(now):
			a[key] = x.before
		default:
			delete(a, key)
		}
	}
}

// alerts says whether a value is past a bound and nothing speaks against the alert: too few events, or another metric.
func (m *KeyMetric) alerts(bound, value float64, scope string, values results) bool {
	return m.Op.past(value, bound) && // false for NaN
		!m.few(scope, values) &&
		(m.Unless == "" || !m.muted(scope, values))
}

// few says whether the window has fewer events than an alert needs.
func (m *KeyMetric) few(scope string, values results) bool {
	return m.MinEvents > 0 && !(values[m.eventsKey()][scope] >= m.MinEvents)
}

// bound is what a value must be past now: to go on, an alert that fires needs less than to begin.
func (a alerts) bound(t Threshold, key alertKey) float64 {
	if t.Clear == 0 {
		return t.Value
	}
	if x := a[key]; x == nil || x.state != firing {
		return t.Value
	}
	return t.Clear
}

// due finds the alert, or begins it.
func (a alerts) due(now time.Time, key alertKey, m *KeyMetric, t Threshold) *activeAlert {
	x := a[key]
	if x == nil || x.state == inactive {
		x = &activeAlert{metric: m, threshold: t, since: now, before: x}
		a[key] = x
	}
	x.due = now
	return x
}

// step moves an alert on, and says whether there is something to remember of it.
func (x *activeAlert) step(now time.Time) bool {
	if x.due.Equal(now) {
		x.keeping = time.Time{}
		if x.state == pending && now.Sub(x.since) >= x.threshold.For {
			x.state, x.fired, x.before = firing, now, nil
		}
		return true
	}
	switch x.state {
	case pending:
		return false
	case inactive:
		return now.Sub(x.resolved) <= resolvedRetention
	}
	if x.keeping.IsZero() {
		x.keeping = now
	}
	if now.Sub(x.keeping) >= x.metric.KeepFiringFor {
		x.state, x.resolved, x.keeping = inactive, now, time.Time{}
	}
	return true
}

// inhibited says whether a critical alert fires for what a warning warns of. Both have the same scope labels, or none.
func (a alerts) inhibited(key alertKey) bool {
	if key.severity != Warning {
		return false
	}
	key.severity = Critical
	x := a[key]
	return x != nil && x.state == firing
}
