package metrics

import (
	"maps"
	"math"
	"slices"
	"time"
)

// Report is the reply of GET /api/v1/performance/capacity/dashboard.
type Report struct {
	// Alerts are those pending or firing, the worst first.
	Alerts []Alert `json:"alerts"`
	// Resolved are alerts that have fired and ended within the last 15 minutes, the latest first.
	Resolved []Alert `json:"resolved"`
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
	// Instances are those that it covers, Members more of each.
	Instances []string `json:"instances"`
	Members   []Member `json:"members"`
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
	// WarningClear and CriticalClear are what the value must no longer be past for a fired alert to end, in Unit, or null
	// where that is the threshold.
	WarningClear  *float64 `json:"warning_clear"`
	CriticalClear *float64 `json:"critical_clear"`
	// State is what the value means now, unknown where there is none or too few events for an alert; alerts fire later.
	State Level `json:"state"`
	// Trend is how the value has moved over the window.
	Trend Trend `json:"trend"`

	scope string
}

// reach is how much of the fleet a report covers.
type reach int

const (
	instanceReach reach = iota
	fleetReach
	reaches
)

func (r reach) String() string { return [...]string{"instance", "fleet"}[r] }

// report is an evaluation of this instance and of the fleet. Without a fleet both are of this instance.
type report [reaches]view

// view is the dashboard but for its trends, which are made when somebody asks, as the ranking of resources is.
type view struct{ dashboard Report }

// judge is what an evaluation remembers of one reach.
type judge struct {
	alerts  alerts
	values  results
	history *history
	ledger  *ledger
}

func newJudge(c *Capacity) *judge {
	return &judge{
		alerts: alerts{}, values: results{},
		history: newHistory(c.table, c.opts.Interval, c.opts.Window), ledger: newLedger(c.opts.Interval, c.opts.Window),
	}
}

// evaluate makes both reports. only is this instance where the others are not known.
func (e *evaluation) evaluate(now time.Time, only, degraded string) {
	r := &report{}
	r[instanceReach] = e.view(now, instanceReach, e.opts.Instance)
	if e.opts.Store == nil {
		r[fleetReach] = r[instanceReach]
		r[fleetReach].dashboard.Degraded = noFleet
	} else {
		r[fleetReach] = e.view(now, fleetReach, only)
		r[fleetReach].dashboard.Degraded = degraded
	}
	e.report.Store(r)
}

const noFleet = "there is no store of snapshots (CapacityOptions.Store), so that this report is about this instance alone"

// view evaluates the fleet, or only one instance.
func (e *evaluation) view(now time.Time, of reach, only string) view {
	j := e.judges[of]
	values, all := j.values, only
	if of == fleetReach {
		all = "" // a store that cannot be read ends no alert about the others
	}
	e.window.evaluate(values, e.table, all)
	j.alerts.tick(now, e.table, values)
	if all != only {
		e.window.evaluate(values, e.table, only)
	}
	about := About{
		Time: now, Instance: e.opts.Instance, Instances: e.window.reporting(only), Scope: instanceReach.String(),
		Warming: e.window.elapsed() < e.opts.Window-e.opts.Interval, WindowSeconds: e.window.elapsed().Seconds(), Unmeasured: e.missing,
	}
	if only == "" {
		about.Scope = fleetReach.String()
	}
	readings := e.window.newest().readings
	if only != "" {
		readings = map[string]*reading{only: readings[only]}
	}
	about.Members = e.roster.members(now, readings)
	told := map[string]*vitals{}
	for instance, r := range readings {
		if r.Vitals != nil {
			told[instance] = r.Vitals
		}
	}
	if about.Scope == of.String() { // a fleet's past has a gap where only this instance is known
		j.history.add(now, values)
		j.ledger.add(now, told)
	}
	d := Report{Alerts: j.alerts.list(about.Scope), Resolved: j.alerts.ended(about.Scope), Metrics: measure(e.table, values), About: about}
	for i := range d.Alerts {
		d.Alerts[i].explain(e.table, told)
	}
	return view{d}
}

// suspects are the metrics whose causes each instance tells: those that alerted when this one last evaluated.
func (e *evaluation) suspects() map[string]bool {
	ids := map[string]bool{}
	if r := e.report.Load(); r != nil {
		for _, v := range r {
			for _, a := range v.dashboard.Alerts {
				ids[a.Labels["metric"]] = true
			}
		}
	}
	return ids
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
			none := m.measurement("", math.NaN())
			none.Labels = map[string]string{}
			list = append(list, none)
		}
		for _, scope := range scopes {
			row := m.measurement(scope, values[m.ID][scope])
			switch {
			case m.few(scope, values):
				row.State = Unknown
			case m.muted(scope, values):
				row.State = OK
			}
			list = append(list, row)
		}
	}
	return list
}

func (m KeyMetric) measurement(scope string, value float64) Measurement {
	out := Measurement{ID: m.ID, Title: m.Title, Labels: m.labels(scope), Unit: m.Unit, Op: m.Op, State: m.Level(value), scope: scope}
	out.Value = number(value)
	if m.HasThresholds() {
		out.Warning, out.Critical = &m.Warning, &m.Critical
		out.WarningClear, out.CriticalClear = clearOf(m.WarningClear), clearOf(m.CriticalClear)
	}
	return out
}

func clearOf(bound float64) *float64 {
	if bound == 0 {
		return nil
	}
	return &bound
}

// Dashboard returns the last evaluation, of the fleet where there is a store, else of this instance. It never answers
// with an old one: where Run has not evaluated for three intervals, everything is unknown.
func (c *Capacity) Dashboard() *Report { return c.dashboard(c.widest()) }

// Bottlenecks is Dashboard for the ranking of resources.
func (c *Capacity) Bottlenecks() *Bottlenecks { return c.bottlenecks(c.widest()) }

// History returns what is known of the key metrics, or of those named, since a time; the zero time means since ever,
// which is an hour at the default window. Of the fleet where there is a store, else of this instance.
func (c *Capacity) History(since time.Time, metrics ...string) *History {
	return c.past(c.widest(), since, metrics)
}

func (c *Capacity) widest() reach {
	if c.opts.Store == nil {
		return instanceReach
	}
	return fleetReach
}

func (c *Capacity) dashboard(of reach) *Report {
	d := c.current(time.Now())[of].dashboard
	d.Metrics = slices.Clone(d.Metrics)
	h := c.judges[d.reach()].history
	for i, m := range d.Metrics {
		d.Metrics[i].Trend = Trend{Direction: unknownTrend}
		if row := slices.IndexFunc(c.table, func(row KeyMetric) bool { return row.ID == m.ID }); row >= 0 && m.Value != nil {
			d.Metrics[i].Trend = h.trend(c.table[row], m.scope, c.opts.Window.Seconds())
		}
	}
	return &d
}

func (c *Capacity) bottlenecks(of reach) *Bottlenecks {
	about := c.current(time.Now())[of].dashboard.About
	if about.Time.IsZero() {
		return &Bottlenecks{Verdict: notEnough, ThroughputOf: rateNames[requestRate], Resources: []Resource{}, About: about}
	}
	return c.judges[about.reach()].ledger.bottlenecks(c.opts.Window, about)
}

// reach is what the report really covers, whatever was asked.
func (a *About) reach() reach {
	if a.Scope == fleetReach.String() {
		return fleetReach
	}
	return instanceReach
}

// kept is the reach whose past is kept: without a store, of this instance alone.
func (c *Capacity) kept(of reach) reach {
	if c.opts.Store == nil {
		return instanceReach
	}
	return of
}

func (c *Capacity) past(of reach, since time.Time, metrics []string) *History {
	of = c.kept(of)
	return c.judges[of].history.report(since, metrics, of.String())
}

func (c *Capacity) current(now time.Time) *report {
	r := c.report.Load()
	if r != nil && now.Sub(r[instanceReach].dashboard.Time) <= 3*c.opts.Interval {
		return r
	}
	about := About{
		Instance: c.opts.Instance, Instances: []string{}, Members: []Member{}, Unmeasured: []string{}, Scope: instanceReach.String(), Warming: true,
		Degraded: "nothing has been evaluated lately: Capacity.Run must be running",
	}
	nothing := view{Report{Alerts: []Alert{}, Resolved: []Alert{}, Metrics: measure(c.table, nil), About: about}}
	return &report{nothing, nothing}
}
