package queue

import (
	"context"
	"strconv"

	"github.com/scaleaware/scaleaware/admin"
)

// scalingOperation explains the autoscaler. Its demand and desired are for KEDA's metrics-api scaler.
func (j *Jobs) scalingOperation() admin.Operation {
	return admin.Operation{
		Method: "GET", Path: jobsPath + "/{queue}/scaling", ID: "queue.scaling",
		Summary: "Demand and desired workers of a queue, and why: the autoscaler's last decisions. KEDA's metrics-api scaler reads demand or desired.",
		Params:  []admin.Param{{Name: "limit", In: "query", Type: "integer", Description: "How many decisions to show, 1 to 100. The default is 10."}},
		Reply:   Scaling{},
		Do: func(ctx context.Context, call *admin.Call) (any, error) {
			limit := 10
			if text := call.Query("limit"); text != "" {
				n, err := strconv.Atoi(text)
				if err != nil || n < 1 || n > keptDecisions {
					return nil, admin.Invalid("limit", "limit is %q, want 1 to %d", clip(text), keptDecisions)
				}
				limit = n
			}
			s, err := j.Scaling(ctx, call.Path("queue"), limit)
			if err != nil {
				return nil, problem(err)
			}
			return s, nil
		},
	}
}
