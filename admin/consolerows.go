package admin

import (
	"maps"
	"slices"
	"strings"
	"time"
)

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
		if row.Actions = c.offer(id, q.Queue, "pause"); q.Paused {
			row.Actions = c.offer(id, q.Queue, "resume")
		}
		if q.Failed > 0 {
			row.Actions = append(row.Actions, c.offer(id, q.Queue, "retry-failed")...)
		}
		v.Queues = append(v.Queues, row)
	}
	for _, q := range jobs.Unread {
		v.Queues = append(v.Queues, queueView{Name: q.Queue, Unread: q.Error})
	}
}

func (v *consoleView) addSessions(r *sessionsReply) {
	v.Sessions = &sessionsView{Since: r.Since.UTC()}
	for _, e := range r.Events {
		row := sessionRow{Title: e.Title, Count: short(float64(e.Count))}
		if e.Trouble && e.Count > 0 {
			row.Level = "warning"
		}
		v.Sessions.Rows = append(v.Sessions.Rows, row)
	}
}

// addCache holds each view against the thresholds of the whole, for colour only: alerts come from the dashboard.
func (v *consoleView) addCache(reply *cacheReply, dashboard *dashboardReply) {
	rate := dashboard.thresholds(func(m metricReply) bool { return m.ID == "cache_hit_rate" })
	rate.Unit = "ratio"
	add := func(name string, h cacheHits) {
		rate.Value = h.Rate
		row := cacheView{Name: name, Rate: optional(h.Rate, "ratio"), Level: rate.level(), Lookups: short(float64(h.Lookups)), Bar: newBar(rate)}
		var results []string
		for _, result := range slices.Sorted(maps.Keys(h.ByResult)) {
			results = append(results, strings.ReplaceAll(result, "_", " ")+" "+short(float64(h.ByResult[result])))
		}
		row.Results = strings.Join(results, " · ")
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
		case n.Up != nil && !*n.Up:
			row.Level, row.Down = "critical", true
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

// bottlenecks finds a resource's thresholds by its title: a resource that is a key metric has the metric's.
func bottlenecks(reply *bottlenecksReply, dashboard *dashboardReply) *bottleneckView {
	out := &bottleneckView{Verdict: reply.Verdict}
	for _, r := range reply.Resources {
		row := resourceView{Title: r.Title, Level: level(r.State), Used: optional(r.Utilization, "ratio"), Ceiling: optional(r.Ceiling, "per_second"), Status: r.Status, Step: r.Step}
		if row.FullIn = "–"; r.Saturation != nil {
			row.FullIn = "≈ " + seconds(r.Saturation.Seconds)
		}
		if name := scopeName(r.Labels); name != "" {
			row.Title += " · " + name
		}
		used := dashboard.thresholds(func(m metricReply) bool { return m.Title == r.Title && m.Unit == "ratio" })
		used.Value, used.Unit = r.Utilization, "ratio"
		row.Bar = newBar(used)
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
