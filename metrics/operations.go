package metrics

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

const paramScope = "scope"

var scopeParam = admin.Param{
	Name: paramScope, In: "query", Type: "string",
	Description: "instance or fleet; left out, the fleet where the instances share a store, else this instance.",
}

// Operations are the capacity reports for the management listener.
func (c *Capacity) Operations() []admin.Operation {
	return []admin.Operation{
		{
			Method: http.MethodGet, Path: "/api/v1/performance/capacity/dashboard", ID: "capacity.dashboard",
			Summary: "Alerts that are pending or firing with their causes, and every key metric with its thresholds and trend.",
			Params:  []admin.Param{scopeParam},
			Reply:   Report{},
			Do: func(_ context.Context, call *admin.Call) (any, error) {
				of, err := c.asked(call)
				if err != nil {
					return nil, err
				}
				return c.dashboard(of), nil
			},
		},
		{
			Method: http.MethodGet, Path: "/api/v1/performance/capacity/bottlenecks", ID: "capacity.bottlenecks",
			Summary: "Resources, ranked by the throughput at which each is used up.",
			Params:  []admin.Param{scopeParam},
			Reply:   Bottlenecks{},
			Do: func(_ context.Context, call *admin.Call) (any, error) {
				of, err := c.asked(call)
				if err != nil {
					return nil, err
				}
				return c.bottlenecks(of), nil
			},
		},
		{
			Method: http.MethodGet, Path: "/api/v1/performance/capacity/history", ID: "capacity.history",
			Summary: "Key metrics over the last hour (at the default window), for charts.",
			Params: []admin.Param{
				{Name: "metric", In: "query", Type: "string", Description: "IDs of key metrics as in the dashboard, separated by commas; left out, all of them."},
				{Name: "since", In: "query", Type: "string", Description: "A time (RFC 3339), or how long ago (10m); left out, all that is kept."},
				scopeParam,
			},
			Reply: History{},
			Do:    func(_ context.Context, call *admin.Call) (any, error) { return c.history(call) },
		},
	}
}

func (c *Capacity) history(call *admin.Call) (*History, error) {
	of, err := c.asked(call)
	if err != nil {
		return nil, err
	}
	since, err := parseSince(call.Query("since"), time.Now())
	if err != nil {
		return nil, err
	}
	var wanted []string
	if list := call.Query("metric"); list != "" {
		wanted = strings.Split(list, ",")
	}
	for _, id := range wanted {
		if !slices.ContainsFunc(c.table, func(m KeyMetric) bool { return m.ID == id }) {
			return nil, admin.Invalid("metric", "there is no key metric %.64q: the dashboard lists their IDs", id)
		}
	}
	return c.past(of, since, wanted), nil
}

// asked is the scope that a call asks for.
func (c *Capacity) asked(call *admin.Call) (reach, error) {
	switch scope := call.Query(paramScope); scope {
	case "":
		return c.widest(), nil
	case instanceReach.String():
		return instanceReach, nil
	case fleetReach.String():
		return fleetReach, nil
	default:
		return 0, admin.Invalid(paramScope, "scope has to be instance or fleet, and %.64q is neither", scope)
	}
}

// parseSince takes a time or how long ago it was. The zero time means since ever.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, admin.Invalid("since", "since has to be a time such as 2026-01-02T15:04:05Z or how long ago, such as 10m, and %.64q is neither", text)
}
