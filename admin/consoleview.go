package admin

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// consoleView is what the page shows.
type consoleView struct {
	Now      time.Time
	Actor    string
	Role     string
	Level    string // of the whole: ok, warning, critical or unknown
	Headline string
	About    string
	Notes    []string
	Mode     *modeView
	Alerts   []alertView
	First    bool    // not asked for by the script, which has a clock and draws by itself
	Charts   *charts // nil when they are not asked for, or not to be had
	Span     string
	Groups   []metricGroup
	Bottle   *bottleneckView
	Queues   []queueView
	Cache    []cacheView
	Sessions *sessionsView
	Nodes    []nodeView
	Checks   []checkView
	Audit    []auditEntry
	Work     []operationStatus

	reported *dashboardReply
}

type alertView struct {
	Level, Name, Summary, Why, Runbook, Value, Threshold, State, Scope string
	Since                                                              time.Time
}

type metricGroup struct {
	Name  string
	Cards []metricCard
}

type metricCard struct {
	Key, Title, Value, Level string
	Warning, Critical, Past  string // Past says on which side of them the trouble is
	Charted                  bool
	Sketch                   *sketch
	Bar                      *bar
	Rows                     []metricRow
	More                     int // rows that are not shown
}

// metricRow is one scope. Line is the number of its line's colour.
type metricRow struct {
	Scope, Value, Level string
	Least, Most         string
	Line                int
}

type bottleneckView struct {
	Verdict   string
	Resources []resourceView
}

// maxResources keeps the page short: what limits first comes first.
const maxResources = 8

// Shown are the resources that the page lists.
func (b *bottleneckView) Shown() []resourceView {
	return b.Resources[:min(maxResources, len(b.Resources))]
}

// Hidden is the number of those that Shown leaves out.
func (b *bottleneckView) Hidden() int { return max(0, len(b.Resources)-maxResources) }

type resourceView struct {
	Title, Level, Used, Ceiling, FullIn, Status, Step string
	Bar                                               *bar
}

type queueView struct {
	Name, Oldest, P95, Limit, Workers                  string
	Waiting, Active, Delayed, Retrying, Failed, Parked int
	Paused                                             bool
	Unread                                             string // why nothing of it is known
	Actions                                            []action
}

type cacheView struct {
	Name, Rate, Level string
	Lookups, Results  string
	Bar               *bar
}

// sessionsView is of the instance that is asked, whatever the page is about.
type sessionsView struct {
	Since time.Time
	Rows  []sessionRow
}

type sessionRow struct{ Title, Count, Level string }

type nodeView struct {
	nodeReply
	Level, Behind, Speed string
	Down                 bool
}

type checkView struct{ Name, Level, Text string }

func (c *console) view(r *consoleReplies, id Identity) *consoleView {
	v := &consoleView{Now: time.Now().UTC(), Actor: id.Name, Role: id.Role.String()}
	for _, path := range slices.Sorted(maps.Keys(r.failed)) {
		v.Notes = append(v.Notes, path+": "+r.failed[path])
	}
	if r.History != nil {
		v.Charts = newCharts(r.History)
		v.Span = v.Charts.span()
	}
	if d := r.Dashboard; d != nil {
		v.about(d)
		v.alerts(d.Alerts)
		v.Groups = c.groupMetrics(d.Metrics, v.Charts)
	}
	if b := r.Bottlenecks; b != nil {
		v.Bottle = bottlenecks(b, r.Dashboard)
	}
	c.addQueues(v, r.Jobs, id)
	if r.Cache != nil {
		v.addCache(r.Cache, r.Dashboard)
	}
	if r.Sessions != nil {
		v.addSessions(r.Sessions)
	}
	if r.Database != nil {
		v.addNodes(r.Database.Nodes)
	}
	v.addChecks(r.Health)
	if r.ReadOnly != nil {
		v.Mode = c.mode(r.ReadOnly, id)
	}
	if r.Audit != nil {
		v.Audit = r.Audit.Records[:min(12, len(r.Audit.Records))]
	}
	if r.Operations != nil {
		v.Work = r.Operations.Operations[:min(6, len(r.Operations.Operations))]
	}
	v.summarize(r)
	return v
}

func (v *consoleView) about(d *dashboardReply) {
	switch n := len(d.Instances); {
	case d.Scope == "instance" || n == 0:
		v.About = "this instance only"
	case n == 1:
		v.About = "fleet of 1 instance"
	default:
		v.About = "fleet of " + short(float64(n)) + " instances"
	}
	if d.Warming {
		v.About += ", warming up"
	}
	if d.Degraded != "" {
		v.Notes = append(v.Notes, d.Degraded)
	}
}

func (v *consoleView) alerts(alerts []alertReply) {
	for _, a := range alerts {
		view := alertView{
			Level: level(a.Labels["severity"]), Name: a.Labels["alertname"], Summary: a.Annotations["summary"], Runbook: a.Annotations["runbook"],
			Value: quantity(a.Value, a.Unit), Threshold: quantity(a.Threshold, a.Unit), State: a.State, Since: a.ActiveAt, Scope: scopeName(a.Labels),
		}
		if a.Why != nil {
			view.Why = a.Why.Text
		}
		v.Alerts = append(v.Alerts, view)
	}
}

// summarize says in one line how things are.
func (v *consoleView) summarize(r *consoleReplies) {
	firing := map[string]int{}
	for _, a := range v.Alerts {
		if a.State == "firing" {
			firing[a.Level]++
		}
	}
	total := firing["critical"] + firing["warning"] + firing["unknown"]
	v.Level, v.Headline = "ok", "All is well"
	switch {
	case r.Health.Status == "unavailable":
		v.Level, v.Headline = "critical", "Not ready: "+strings.Join(r.Health.Failing, ", ")
	case total == 1:
		v.Level, v.Headline = "warning", "1 alert is firing"
	case total > 1:
		v.Level, v.Headline = "warning", short(float64(total))+" alerts are firing"
	case r.Health.Status == "degraded":
		v.Level, v.Headline = "warning", "Degraded: "+strings.Join(r.Health.Degraded, ", ")
	case len(v.Alerts) > 0:
		v.Level, v.Headline = "warning", "Something is building up"
	}
	if firing["critical"] > 0 {
		v.Level = "critical"
	}
}
