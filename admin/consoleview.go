package admin

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	readOnlyPath = "/api/v1/admin/read-only-mode"
	jobsPath     = "/api/v1/performance/jobs/"
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
	ReadOnly *readOnlyReply
	Switch   []action
	Alerts   []alertView
	Groups   []metricGroup
	Bottle   *bottleneckView
	Queues   []queueView
	Cache    []cacheView
	Nodes    []nodeView
	Checks   []checkView
	Audit    []auditEntry
	Work     []operationStatus
}

// action is a button that sends one request after a confirmation. Path has no leading slash: the page may be mounted
// under a prefix.
type action struct {
	ID, Label, Method, Path, Title, Text string
	Field                                string // body field that the dialog asks for
	Danger                               bool
}

type alertView struct {
	Level, Name, Summary, Runbook, Value, Threshold, State, Scope string
	Since                                                         time.Time
}

type metricGroup struct {
	Name  string
	Cards []metricCard
}

type metricCard struct {
	Key, Title, Value, Level, Limits string
	Raw                              string // for the sparkline
	Bar                              *bar
	Rows                             []metricRow
}

type metricRow struct{ Scope, Value, Level string }

type bottleneckView struct {
	Verdict   string
	Resources []resourceView
}

type resourceView struct {
	Title, Level, Used, Ceiling, Status, Step string
	Bar                                       *bar
}

type queueView struct {
	Name, Oldest, P95, Limit, Workers                  string
	Waiting, Active, Delayed, Retrying, Failed, Parked int
	Paused                                             bool
	Actions                                            []action
}

type cacheView struct {
	Name, Rate, Level string
	Lookups           string
	Results           []metricRow
	Bar               *bar
}

type nodeView struct {
	nodeReply
	Level, Behind, Speed string
}

type checkView struct{ Name, Level, Text string }

func (c *console) view(r *consoleReplies, id Identity) *consoleView {
	v := &consoleView{Now: time.Now().UTC(), Actor: id.Name, Role: id.Role.String(), ReadOnly: r.ReadOnly}
	for _, path := range slices.Sorted(maps.Keys(r.failed)) {
		v.Notes = append(v.Notes, path+": "+r.failed[path])
	}
	if d := r.Dashboard; d != nil {
		v.about(d)
		v.alerts(d.Alerts)
		v.Groups = groupMetrics(d.Metrics)
	}
	if b := r.Bottlenecks; b != nil {
		v.Bottle = bottlenecks(b)
	}
	c.addQueues(v, r.Jobs, id)
	if r.Cache != nil {
		v.addCache(r.Cache)
	}
	if r.Database != nil {
		v.addNodes(r.Database.Nodes)
	}
	v.addChecks(r.Health)
	c.addSwitch(v, id)
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
		v.Alerts = append(v.Alerts, alertView{
			Level: level(a.Labels["severity"]), Name: a.Labels["alertname"], Summary: a.Annotations["summary"], Runbook: a.Annotations["runbook"],
			Value: quantity(a.Value, a.Unit), Threshold: quantity(a.Threshold, a.Unit), State: a.State, Since: a.ActiveAt, Scope: scopeName(a.Labels),
		})
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

func (v *consoleView) addChecks(h healthReply) {
	for _, name := range slices.Sorted(maps.Keys(h.Checks)) {
		check := checkView{Name: name, Level: "ok", Text: seconds(h.Checks[name].DurationMS / 1000)}
		if reply := h.Checks[name]; reply.Error != "" {
			check.Level, check.Text = "critical", reply.Error
			if reply.Optional {
				check.Level = "warning"
			}
		}
		v.Checks = append(v.Checks, check)
	}
}

func (c *console) addSwitch(v *consoleView, id Identity) {
	if v.ReadOnly == nil || id.Role != Operator {
		return
	}
	path := strings.TrimPrefix(readOnlyPath, "/")
	if v.ReadOnly.Enabled && c.mounted[http.MethodDelete+" "+readOnlyPath] {
		v.Switch = append(v.Switch, action{ID: "read-only-off", Label: "Allow writes again", Method: http.MethodDelete, Path: path,
			Title: "Allow writes again?", Text: "Every instance takes writes again at once."})
	}
	if !v.ReadOnly.Enabled && c.mounted[http.MethodPost+" "+readOnlyPath] {
		v.Switch = append(v.Switch, action{ID: "read-only-on", Label: "Read-only mode…", Method: http.MethodPost, Path: path, Field: "reason", Danger: true,
			Title: "Turn read-only mode on?", Text: "Every instance refuses writes until it is turned off. Reads go on."})
	}
}

func (c *console) addQueues(v *consoleView, jobs *jobsReply, id Identity) {
	if jobs == nil {
		return
	}
	for _, q := range jobs.Queues {
		row := queueView{
			Name: q.Queue, Waiting: q.Waiting, Active: q.Active, Delayed: q.Delayed, Retrying: q.Retrying, Failed: q.Failed, Parked: q.Parked, Paused: q.Paused,
			Oldest: optional(q.OldestSeconds, "seconds"), P95: optional(q.RunP95Seconds, "seconds"), Limit: "–", Workers: "–",
		}
		if q.RateLimit != nil && q.RateLimit.PerSeconds > 0 {
			row.Limit = short(q.RateLimit.Max/q.RateLimit.PerSeconds) + " /s"
		}
		if q.DesiredWorkers != nil {
			row.Workers = short(float64(*q.DesiredWorkers))
		}
		verb, label, text := "pause", "Pause", "Its jobs stay and wait; those that run end."
		if q.Paused {
			verb, label, text = "resume", "Resume", "Its workers take jobs again at once."
		}
		if id.Role == Operator && c.mounted[http.MethodPost+" "+jobsPath+"{queue}/"+verb] {
			row.Actions = append(row.Actions, action{ID: verb + "-" + q.Queue, Label: label, Method: http.MethodPost,
				Path: strings.TrimPrefix(jobsPath, "/") + url.PathEscape(q.Queue) + "/" + verb, Title: label + " the queue " + q.Queue + "?", Text: text, Danger: verb == "pause"})
		}
		v.Queues = append(v.Queues, row)
	}
}

func (v *consoleView) addCache(reply *cacheReply) {
	add := func(name string, h cacheHits) {
		row := cacheView{Name: name, Rate: optional(h.Rate, "ratio"), Level: "unknown", Lookups: short(float64(h.Lookups))}
		if h.Rate != nil {
			warning, critical := .8, .6 // the runbook's, for colour only: alerts come from the dashboard
			row.Level = "ok"
			if *h.Rate < critical {
				row.Level = "critical"
			} else if *h.Rate < warning {
				row.Level = "warning"
			}
			row.Bar = newBar(metricReply{Value: h.Rate, Unit: "ratio", Op: "below", Warning: &warning, Critical: &critical})
		}
		for _, result := range slices.Sorted(maps.Keys(h.ByResult)) {
			row.Results = append(row.Results, metricRow{Scope: strings.ReplaceAll(result, "_", " "), Value: short(float64(h.ByResult[result]))})
		}
		v.Cache = append(v.Cache, row)
	}
	add("all", reply.Total)
	for _, name := range slices.Sorted(maps.Keys(reply.Views)) {
		add(name, reply.Views[name])
	}
}

func (v *consoleView) addNodes(nodes []nodeReply) {
	for _, n := range nodes {
		row := nodeView{nodeReply: n, Level: "ok", Behind: "–", Speed: "–"}
		switch {
		case !n.Up:
			row.Level = "critical"
		case n.Advice != "":
			row.Level = "warning"
		}
		if n.Staleness != nil && *n.Staleness >= 0 && n.Role != "primary" {
			row.Behind = "≤ " + seconds(time.Duration(*n.Staleness).Seconds())
		}
		if n.Latency > 0 {
			row.Speed = seconds(time.Duration(n.Latency).Seconds())
		}
		v.Nodes = append(v.Nodes, row)
	}
}

func bottlenecks(reply *bottlenecksReply) *bottleneckView {
	out := &bottleneckView{Verdict: reply.Verdict}
	for _, r := range reply.Resources {
		row := resourceView{Title: r.Title, Level: level(r.State), Used: optional(r.Utilization, "ratio"), Ceiling: optional(r.Ceiling, "per_second"), Status: r.Status, Step: r.Step}
		if name := scopeName(r.Labels); name != "" {
			row.Title += " · " + name
		}
		if r.Utilization != nil {
			warning, critical := .8, .9
			row.Bar = newBar(metricReply{Value: r.Utilization, Unit: "ratio", Warning: &warning, Critical: &critical})
		}
		out.Resources = append(out.Resources, row)
	}
	return out
}

func optional(v *float64, unit string) string {
	if v == nil {
		return "–"
	}
	return quantity(*v, unit)
}

// badness orders levels for showing the worst.
func badness(l string) int { return slices.Index([]string{"unknown", "ok", "warning", "critical"}, l) }

// groupMetrics makes a card of each metric; the worst of its scopes is its face.
func groupMetrics(metrics []metricReply) []metricGroup {
	var groups []metricGroup
	byID := map[string][]metricReply{}
	var order []string
	for _, m := range metrics {
		if byID[m.ID] == nil {
			order = append(order, m.ID)
		}
		byID[m.ID] = append(byID[m.ID], m)
	}
	for _, id := range order {
		name := groupName(id)
		i := slices.IndexFunc(groups, func(g metricGroup) bool { return g.Name == name })
		if i < 0 {
			i = len(groups)
			groups = append(groups, metricGroup{Name: name})
		}
		groups[i].Cards = append(groups[i].Cards, card(byID[id]))
	}
	return groups
}

func groupName(id string) string {
	prefix, _, _ := strings.Cut(id, "_")
	switch prefix {
	case "api", "http":
		return "API"
	case "db":
		return "Database"
	case "cache":
		return "Cache"
	case "queue", "job":
		return "Queues"
	}
	return "Other"
}

func card(metrics []metricReply) metricCard {
	value := func(m metricReply) float64 {
		if m.Value == nil {
			return 0
		}
		return *m.Value
	}
	slices.SortStableFunc(metrics, func(a, b metricReply) int {
		if c := cmp.Compare(badness(level(b.State)), badness(level(a.State))); c != 0 {
			return c
		}
		if a.Op == "below" {
			return cmp.Compare(value(a), value(b))
		}
		return cmp.Compare(value(b), value(a))
	})
	worst := metrics[0]
	out := metricCard{Key: worst.ID, Title: worst.Title, Level: level(worst.State), Value: optional(worst.Value, worst.Unit), Bar: newBar(worst)}
	if worst.Value != nil {
		out.Raw = quantityRaw(*worst.Value)
	}
	if worst.Warning != nil && worst.Critical != nil {
		sign := "> "
		if worst.Op == "below" {
			sign = "< "
		}
		out.Limits = sign + quantity(*worst.Warning, worst.Unit) + " / " + quantity(*worst.Critical, worst.Unit)
	}
	for _, m := range metrics {
		if name := scopeName(m.Labels); name != "" {
			out.Rows = append(out.Rows, metricRow{Scope: name, Value: optional(m.Value, m.Unit), Level: level(m.State)})
		}
	}
	return out
}
