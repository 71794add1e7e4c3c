package metrics

import (
	"maps"
	"math"
	"slices"
	"time"
)

// Dashboard is the reply of GET /api/v1/performance/capacity/dashboard.
type Dashboard struct {
	// Alerts are those pending or firing, the worst first.
	Alerts []Alert `json:"alerts"`
	// Metrics are all key metrics, one for each scope, such as a queue, that has a value.
	Metrics []Measurement `json:"metrics"`
	About
}

// About says what a report is about and how far to trust it.
type About struct {
	// Time is when it was evaluated; zero before the first time.
	Time time.Time `json:"time"`
	// Instance is the process that evaluated it.
	Instance string `json:"instance"`
	// Instances are those that it covers.
	Instances []string `json:"instances"`
	// Scope is fleet or instance.
	Scope string `json:"scope"`
	// Degraded says why it covers less than it should, if it does.
	Degraded string `json:"degraded,omitempty"`
	// Warming is true until a whole window has been seen. Values are of the time seen so far.
	Warming bool `json:"warming"`
	// Unmeasured are the key metrics that nothing in the evaluating process measures: it uses no package that does.
	Unmeasured []string `json:"unmeasured"`
	// WindowSeconds is the time that rates and quantiles are taken over.
	WindowSeconds float64 `json:"window_seconds"`
}

// Measurement is a key metric's value now.
type Measurement struct {
	// ID and Title name the metric.
	ID    string `json:"id"`
	Title string `json:"title"`
	// Labels are the scope's.
	Labels map[string]string `json:"labels"`
	// Value is in Unit, or null when there is none: nothing happened, or nothing measures it.
	Value *float64 `json:"value"`
	// Unit is seconds, ratio (1 is all), per_second, per_minute, jobs, callers, bytes or bytes_per_day.
	Unit Unit `json:"unit"`
	// Op says on which side of the thresholds the trouble is.
	Op Op `json:"op"`
	// Warning and Critical are the thresholds, in Unit, or null when the metric has none.
	Warning  *float64 `json:"warning"`
	Critical *float64 `json:"critical"`
	// State is what the value means now; alerts fire later.
	State Level `json:"state"`
}

// report is both replies.
type report struct {
	dashboard   Dashboard
	bottlenecks Bottlenecks
}

func (e *evaluation) evaluate(now time.Time, only, degraded string) {
	values := map[string]map[string]float64{}
	for _, m := range e.table {
		if m.Statistic == GrowthPerDay {
			values[m.ID] = e.sizes.perDay(now, e.window.values(m, only))
		} else {
			values[m.ID] = e.window.values(m, only)
		}
	}
	e.alerts.tick(now, e.table, values)
	about := About{
		Time: now, Instance: e.opts.Instance, Instances: e.window.reporting(only), Scope: "fleet", Degraded: degraded,
		Warming: e.window.elapsed() < e.opts.Window-e.opts.Interval, WindowSeconds: e.window.elapsed().Seconds(), Unmeasured: e.missing,
	}
	if only != "" {
		about.Scope = "instance"
	}
	e.report.Store(&report{
		dashboard:   Dashboard{Alerts: e.alerts.list(about.Scope), Metrics: measure(e.table, values), About: about},
		bottlenecks: e.window.bottlenecks(e.table, only, about),
	})
}

func (w *window) reporting(only string) []string {
	if only != "" {
		return []string{only}
	}
	return slices.Sorted(maps.Keys(w.newest().readings))
}

func measure(table []KeyMetric, values map[string]map[string]float64) []Measurement {
	list := []Measurement{}
	for _, m := range table {
		scopes := slices.Sorted(maps.Keys(values[m.ID]))
		if len(scopes) == 0 {
			list = append(list, m.measurement(map[string]string{}, math.NaN()))
		}
		for _, scope := range scopes {
			row := m.measurement(m.labels(scope), values[m.ID][scope])
			if m.muted(scope, values) {
				row.State = OK
			}
			list = append(list, row)
		}
	}
	return list
}

func (m KeyMetric) measurement(labels map[string]string, value float64) Measurement {
	out := Measurement{ID: m.ID, Title: m.Title, Labels: labels, Unit: m.Unit, Op: m.Op, State: m.Level(value)}
	if !math.IsNaN(value) {
		out.Value = &value
	}
	if m.HasThresholds() {
		out.Warning, out.Critical = &m.Warning, &m.Critical
	}
	return out
}

// Dashboard returns the last evaluation. It never answers with an old one: where Run has not evaluated for three
// intervals, everything is unknown.
func (c *Capacity) Dashboard() *Dashboard { return &c.current(time.Now()).dashboard }

// Bottlenecks is Dashboard for the ranking of resources.
func (c *Capacity) Bottlenecks() *Bottlenecks { return &c.current(time.Now()).bottlenecks }

func (c *Capacity) current(now time.Time) *report {
	r := c.report.Load()
	if r != nil && now.Sub(r.dashboard.Time) <= 3*c.opts.Interval {
		return r
	}
	about := About{
		Instance: c.opts.Instance, Instances: []string{}, Unmeasured: []string{}, Scope: "instance", Warming: true,
		Degraded: "nothing has been evaluated lately: Capacity.Run must be running",
	}
	return &report{
		dashboard:   Dashboard{Alerts: []Alert{}, Metrics: measure(c.table, nil), About: about},
		bottlenecks: Bottlenecks{Verdict: notEnough, Resources: []Resource{}, About: about},
	}
}
