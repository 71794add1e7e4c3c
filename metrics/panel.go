package metrics

import (
	"fmt"
	"slices"
	"strings"

	"github.com/scaleaware/scaleaware/metrics/internal/promql"
)

// panel is one picture of the dashboard.
type panel struct {
	area, title, about string
	unit               Unit
	queries            []query
	row                *KeyMetric // whose thresholds are drawn
	table              bool
}

type query struct{ expr, legend string }

// variable is one of the dashboard's, by which panels are narrowed: the values of a label.
type variable struct {
	label  string
	series Series
}

func variables() []variable {
	return []variable{{"instance", SamplerSuccess}, {"pool", DBPoolMax}, {"queue", QueueTasks}}
}

// areas are the dashboard's rows.
const (
	areaAlerts  = "Alerts"
	areaAPI     = "API"
	areaDB      = "Database"
	areaCache   = "Cache"
	areaQueue   = "Queue"
	areaSession = "Sessions and read-only mode"
	areaProcess = "Processes and monitoring"
)

var areaOrder = []string{areaAlerts, areaAPI, areaDB, areaCache, areaQueue, areaSession, areaProcess}

// area is where a series belongs, by its name.
func (s Series) area() string {
	for prefix, area := range map[string]string{
		"http_": areaAPI, "db_": areaDB, "cache_": areaCache, "queue_": areaQueue, "job_": areaQueue, "session_": areaSession, "readonly_": areaSession,
	} {
		if strings.HasPrefix(s.Name, prefix) {
			return area
		}
	}
	return areaProcess
}

// filter narrows a series to the dashboard's variables. A pool is named for its database.
func (s Series) filter() string {
	f := `instance=~"$instance"`
	for _, label := range s.Labels {
		switch label {
		case "pool", "db":
			f += ", " + label + `=~"$pool"`
		case "queue":
			f += `, queue=~"$queue"`
		}
	}
	return f
}

const rateInterval = "$__rate_interval"

// rated is how fast a counter, or a histogram's count, grows by some labels.
func rated(s Series, by, matcher string) query {
	name := s.Name
	if s.Kind == Histogram {
		name += "_count"
	}
	return query{fmt.Sprintf("sum%s(rate(%s{%s}[%s]))", grouping(by), name, both(matcher, s.filter()), rateInterval), legend(by)}
}

// p95 is a histogram's by some labels.
func p95(s Series, by string) query {
	le := "le"
	if by != "" {
		le = by + ", le"
	}
	return query{fmt.Sprintf("histogram_quantile(0.95, sum by (%s) (rate(%s_bucket{%s}[%s])))", le, s.Name, s.filter(), rateInterval), legend(by)}
}

// read is a gauge by some labels.
func read(how string, s Series, by string) query {
	return query{fmt.Sprintf("%s%s(%s{%s})", how, grouping(by), s.Name, s.filter()), legend(by)}
}

func grouping(by string) string {
	if by == "" {
		return ""
	}
	return " by (" + by + ") "
}

func legend(by string) string {
	if by == "" {
		return "all"
	}
	return "{{" + strings.ReplaceAll(by, ", ", "}} {{") + "}}"
}

func (q query) named(name string) query {
	q.legend = strings.TrimPrefix(name+" "+strings.TrimPrefix(q.legend, "all"), " ")
	return q
}

// panels are all pictures, in the order of areas: first the key metrics, then what explains them, then what has no
// picture of its own yet.
func (t Table) panels() []panel {
	t = t.withDefaults()
	list := []panel{{
		area: areaAlerts, title: "Pending and firing", table: true,
		about:   "What Prometheus has raised of scaleaware's rules. The summary and the runbook's step come with the notification.",
		queries: []query{{activeAlerts.Name + `{metric=~"` + strings.Join(append(t.IDs(), watchTarget, watchSampler, watchAll), "|") + `"}`, ""}},
	}}
	for _, m := range t.Rows {
		list = append(list, t.keyPanel(m))
	}
	list = append(list, detailPanels()...)
	list = append(list, t.otherPanels(list)...)
	slices.SortStableFunc(list, func(a, b panel) int { return slices.Index(areaOrder, a.area) - slices.Index(areaOrder, b.area) })
	return list
}

func (t Table) keyPanel(m KeyMetric) panel {
	by := strings.Join(m.Scope, ", ")
	record := t.record(m)
	if f := scopeFilter(m.Scope); f != "" {
		record += "{" + f + "}"
	}
	about := m.Step
	if !m.HasThresholds() {
		about = strings.TrimSpace("No thresholds. " + m.Step)
	}
	return panel{
		area: m.Series.area(), title: m.Title, about: about, unit: m.Unit, row: &m,
		queries: []query{{m.expression(rateInterval, m.Series.filter()), legend(by)}, query{record, legend(by)}.named("as alerts see it:")},
	}
}

func scopeFilter(scope []string) string {
	f := Series{Labels: scope}.filter()
	_, f, _ = strings.Cut(f, ", ") // a record has no instance
	return f
}

// detailPanels say which route, node, cache or queue it is.
func detailPanels() []panel {
	share := query{
		rated(CacheRequests, "cache", `result!="miss"`).expr + " / (" + rated(CacheRequests, "cache", "").expr + " > 0)", legend("cache"),
	}
	cpu := rated(processCPU, "instance", "")
	return []panel{
		{area: areaAPI, title: "Requests by route", unit: PerSecond, queries: []query{rated(HTTPRequestDuration, "route", "")}},
		{area: areaAPI, title: "Latency (p95) by route", unit: Seconds, queries: []query{p95(HTTPRequestDuration, "route")}},
		{area: areaAPI, title: "Errors by route", unit: PerSecond, queries: []query{rated(HTTPRequestDuration, "route", `code="5xx"`)}},
		{area: areaAPI, title: "Requests by class of status", unit: PerSecond, queries: []query{rated(HTTPRequestDuration, "code", "")}},
		{area: areaAPI, title: "Requests being served", queries: []query{read("sum", HTTPActiveRequests, "instance")}},
		{area: areaDB, title: "Connections in use", queries: []query{read("sum", DBPoolAcquired, "pool, role"), read("sum", DBPoolMax, "pool, role").named("most")}},
		{area: areaDB, title: "Callers waiting for a connection now", unit: Callers, queries: []query{read("sum", DBPoolWaiters, "pool, role")}},
		{area: areaDB, title: "Time to get a connection (p95)", unit: Seconds, queries: []query{p95(DBPoolAcquireTime, "pool, role")}},
		{area: areaDB, title: "Query time (p95) by operation", unit: Seconds, queries: []query{p95(DBQueryDuration, "operation")}},
		{area: areaDB, title: "Reads by node and reason", unit: PerSecond, queries: []query{rated(DBReads, "node, role, reason", "")}},
		{area: areaDB, title: "Reads that were hedged", unit: PerSecond, queries: []query{rated(DBHedgedReads, "db, outcome", "")}},
		{area: areaDB, title: "Reads that were compared", unit: PerSecond, queries: []query{rated(DBShadowReads, "db, outcome", "")}},
		{area: areaDB, title: "Replica staleness, at most", unit: Seconds, queries: []query{read("max", DBReplicaStale, "db, node")}},
		{area: areaDB, title: "Nodes that answer", unit: Flag, queries: []query{read("min", DBNodeUp, "db, node, role")}},
		{area: areaDB, title: "Connections of all instances", queries: []query{read("max", DBFleetMax, "db, node").named("may open"), read("max", DBServerMax, "db, node").named("server takes")}},
		{area: areaDB, title: "Consistency tokens", unit: PerSecond, queries: []query{rated(DBTokens, "db, outcome", "")}},
		{area: areaCache, title: "Hit rate by cache", unit: Ratio, queries: []query{share}},
		{area: areaCache, title: "Look-ups by result", unit: PerSecond, queries: []query{rated(CacheRequests, "result", "")}},
		{area: areaCache, title: "Loads and fills", unit: PerSecond, queries: []query{rated(CacheLoads, "outcome", "").named("load"), rated(CacheFills, "outcome", "").named("fill")}},
		{area: areaCache, title: "Keys invalidated", unit: PerSecond, queries: []query{rated(CacheInvalidated, "cache", "")}},
		{area: areaCache, title: "Memory", unit: Bytes, queries: []query{read("max", CacheMemoryUsed, "server").named("used"), read("max", CacheMemoryMax, "server").named("limit")}},
		{area: areaQueue, title: "Jobs by state", unit: Jobs, queries: []query{read("max", QueueTasks, "queue, state")}},
		{area: areaQueue, title: "Age of the oldest job that waits", unit: Seconds, queries: []query{read("max", QueueOldestPending, "queue")}},
		{area: areaQueue, title: "Jobs done, by outcome", unit: PerSecond, queries: []query{rated(JobDuration, "queue, outcome", "")}},
		{area: areaQueue, title: "Processing time (p95) by type", unit: Seconds, queries: []query{p95(JobDuration, "type")}},
		{area: areaQueue, title: "Jobs enqueued", unit: PerSecond, queries: []query{rated(QueueEnqueued, "queue, outcome", "")}},
		{area: areaQueue, title: "Waits for a rate limit", unit: PerSecond, queries: []query{rated(QueueLimited, "queue", "")}},
		{area: areaQueue, title: "Workers", queries: []query{read("max", QueueDesiredWorkers, "queue").named("wanted"), read("sum", QueueWorkerSlots, "instance").named("slots")}},
		{area: areaSession, title: "Session store", unit: PerSecond, queries: []query{rated(SessionCommands, "operation, outcome", "")}},
		{area: areaSession, title: "Read-only mode", unit: Flag, queries: []query{read("max", ReadOnlyEnabled, "instance")}},
		{area: areaSession, title: "Epoch of read-only mode", queries: []query{read("max", ReadOnlyEpoch, "instance")}},
		{area: areaSession, title: "Writes refused", unit: PerSecond, queries: []query{rated(ReadOnlyRefused, "surface", "")}},
		{area: areaProcess, title: "Operations by outcome", unit: PerSecond, queries: []query{rated(AdminWrites, "operation, outcome", "")}},
		{area: areaProcess, title: "Background failures", unit: PerSecond, queries: []query{rated(BackgroundErrors, "package, task", "")}},
		{area: areaProcess, title: "CPU cores used", queries: []query{cpu}},
		{area: areaProcess, title: "Memory", unit: Bytes, queries: []query{read("max", processMemory, "instance")}},
		{area: areaProcess, title: "Goroutines", queries: []query{read("max", goGoroutines, "instance")}},
		{area: areaProcess, title: "File descriptors", queries: []query{read("max", processFiles, "instance")}},
		{area: areaProcess, title: "Targets that answer", unit: Flag, queries: []query{read("max", up, "job, instance")}},
	}
}

// otherPanels show the series of the contract that no panel shows.
func (t Table) otherPanels(shown []panel) []panel {
	names := map[string]bool{}
	for _, p := range shown {
		for _, q := range p.queries {
			if n, err := promql.Parse(q.expr); err == nil { // Audit tells what does not
				promql.Walk(n, func(s promql.Selector) { names[s.Name] = true })
			}
		}
	}
	var list []panel
	for _, s := range Contract() {
		by := strings.Join(s.Labels, ", ")
		p := panel{area: s.area(), title: s.Name, about: s.Help}
		switch {
		case names[s.Name] || names[s.Name+"_count"] || names[s.Name+"_bucket"]:
			continue
		case s.Kind == Counter:
			p.unit, p.queries = PerSecond, []query{rated(s, by, "")}
		case s.Kind == Gauge:
			p.queries = []query{read("max", s, by)}
		default:
			p.unit, p.queries = Seconds, []query{p95(s, by)}
		}
		list = append(list, p)
	}
	return list
}
