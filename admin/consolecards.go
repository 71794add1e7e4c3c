package admin

import (
	"cmp"
	"slices"
	"strings"
)

// badness orders levels for showing the worst.
func badness(l string) int { return slices.Index([]string{"unknown", "ok", "warning", "critical"}, l) }

const (
	palette = 6 // colours of lines in console.css
	maxRows = 6 // of one card
)

// groupMetrics makes a card of each metric; the worst of its scopes is its face.
func (c *console) groupMetrics(metrics []metricReply, drawn *charts) []metricGroup {
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
		groups[i].Cards = append(groups[i].Cards, card(byID[id], drawn.find(id), c.reads[historyPath] != nil))
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

// card draws the metric where there is history. charted keeps room for the script's own drawing, which has its own data.
func card(metrics []metricReply, drawn *chart, charted bool) metricCard {
	value := func(m metricReply) float64 {
		if m.Value == nil {
			return 0
		}
		return *m.Value
	}
	names := make([]string, 0, len(metrics))
	for _, m := range metrics {
		names = append(names, scopeName(m.Labels))
	}
	slices.Sort(names) // as newCharts does
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
	out := metricCard{Key: worst.ID, Title: worst.Title, Level: level(worst.State), Value: optional(worst.Value, worst.Unit), Bar: newBar(worst), Charted: charted}
	if worst.Warning != nil && worst.Critical != nil {
		out.Warning, out.Critical, out.Past = quantity(*worst.Warning, worst.Unit), quantity(*worst.Critical, worst.Unit), "above"
		if worst.Op == "below" {
			out.Past = "below"
		}
	}
	if drawn != nil {
		names, out.Sketch = drawn.Names, drawn.sketch()
	}
	for _, m := range metrics {
		name := scopeName(m.Labels)
		row := metricRow{Scope: name, Value: optional(m.Value, m.Unit), Level: level(m.State), Line: max(0, slices.Index(names, name)) % palette}
		if drawn != nil {
			least, most := drawn.extremes(name)
			row.Least, row.Most = optional(least, m.Unit), optional(most, m.Unit)
		}
		out.Rows = append(out.Rows, row)
	}
	out.More = max(0, len(out.Rows)-maxRows)
	return out
}
