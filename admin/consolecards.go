package admin

import (
	"cmp"
	"slices"
	"strings"
)

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
