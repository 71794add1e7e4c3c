package metrics

import (
	"context"
	"net/http"

	"github.com/scaleaware/scaleaware/admin"
)

// Operations are the capacity reports for the management listener.
func (c *Capacity) Operations() []admin.Operation {
	return []admin.Operation{
		{
			Method: http.MethodGet, Path: "/api/v1/performance/capacity/dashboard", ID: "capacity.dashboard",
			Summary: "Alerts that are pending or firing, and every key metric with its thresholds.",
			Reply:   Dashboard{},
			Do:      func(context.Context, *admin.Call) (any, error) { return c.Dashboard(), nil },
		},
		{
			Method: http.MethodGet, Path: "/api/v1/performance/capacity/bottlenecks", ID: "capacity.bottlenecks",
			Summary: "Resources, ranked by the throughput at which each is used up.",
			Reply:   Bottlenecks{},
			Do:      func(context.Context, *admin.Call) (any, error) { return c.Bottlenecks(), nil },
		},
	}
}
