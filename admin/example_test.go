package admin_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/scaleaware/scaleaware/admin"
)

func Example() {
	paused := false
	ops, err := admin.New([]admin.Operation{{
		Method: http.MethodPost, Path: "/api/v1/performance/jobs/{queue}/pause", ID: "queue.pause", Role: admin.Operator,
		Summary: "Take no more jobs from the queue.",
		Do: func(_ context.Context, call *admin.Call) (any, error) {
			if call.Path("queue") != "low-priority" {
				return nil, admin.NotFound("there is no queue %q", call.Path("queue"))
			}
			if !call.DryRun {
				paused = true
			}
			return map[string]any{"queue": call.Path("queue"), "paused": paused}, nil
		},
	}}, &admin.Options{Tokens: []admin.Token{{Name: "ops", Role: admin.Operator, Secret: "take-one-from-openssl-rand"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, try := range []struct{ path, token string }{
		{"/api/v1/performance/jobs/low-priority/pause", ""},
		{"/api/v1/performance/jobs/low-priorty/pause", "take-one-from-openssl-rand"},
		{"/api/v1/performance/jobs/low-priority/pause?dry_run=true", "take-one-from-openssl-rand"},
		{"/api/v1/performance/jobs/low-priority/pause", "take-one-from-openssl-rand"},
	} {
		r := httptest.NewRequest(http.MethodPost, try.path, nil)
		if try.token != "" {
			r.Header.Set("Authorization", "Bearer "+try.token)
		}
		w := httptest.NewRecorder()
		ops.ServeHTTP(w, r)
		fmt.Print(w.Code, " ", w.Body)
	}
	// Output:
	// 401 {"status":401,"title":"Unauthorized","detail":"send a token: Authorization: Bearer <token>"}
	// 404 {"status":404,"title":"Not Found","detail":"there is no queue \"low-priorty\""}
	// 200 {"paused":false,"queue":"low-priority"}
	// 200 {"paused":true,"queue":"low-priority"}
}
