package main_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// everyOperation walks /openapi.json: each read is made, each write as a dry run. None may be missing, fail, or
// change anything.
func everyOperation(t *testing.T, p *platform) {
	s := p.state(t)
	contract := call[struct {
		Paths map[string]map[string]struct {
			RequestBody json.RawMessage
		}
	}](t, "GET", s.Admin+"/openapi.json", "")
	epoch := func() float64 {
		return call[map[string]any](t, "GET", s.Admin+"/api/v1/admin/read-only-mode", "")["epoch"].(float64)
	}
	before := epoch()
	fill := strings.NewReplacer("{table}", "Event", "{queue}", "normal")
	bodies := map[string]string{"/api/v1/performance/database/pool": `{"max":12}`, "/api/v1/performance/cache/invalidate": `{"pattern":"*"}`}
	queries := map[string]string{"/api/v1/performance/database/partitions/{table}/retain": "&keep=12"} // it has no default
	done := map[string]bool{}
	for path, methods := range contract.Paths {
		for method := range methods {
			method = strings.ToUpper(method)
			target := s.Admin + fill.Replace(path)
			if method != http.MethodGet {
				target += "?dry_run=true" + queries[path]
			}
			if strings.Contains(path, "{id}") {
				continue // there is no operation of a known id
			}
			if method+path == "POST/console/confirm" {
				continue // a form that browsers fill in
			}
			if status, _, reply := send(t, method, target, bodies[path]); status/100 != 2 {
				t.Errorf("%s %s: %d %.300s", method, path, status, reply)
			}
			done[method+" "+path] = true
		}
	}
	for _, want := range []string{
		"GET /health", "GET /livez", "GET /readyz", "GET /metrics", "GET /openapi.json",
		"GET /api/v1/performance/capacity/dashboard", "GET /api/v1/performance/capacity/bottlenecks", "GET /api/v1/performance/capacity/history",
		"GET /api/v1/performance/database/slow-queries", "POST /api/v1/performance/database/optimize-table/{table}",
		"POST /api/v1/performance/database/cancel-long-running", "POST /api/v1/performance/database/pool",
		"GET /api/v1/performance/database/partitions/{table}", "POST /api/v1/performance/database/partitions/{table}",
		"POST /api/v1/performance/database/partitions/{table}/move-default", "POST /api/v1/performance/database/partitions/{table}/retain",
		"GET /api/v1/performance/database/sizes", "GET /api/v1/performance/database/replication",
		"POST /api/v1/performance/cache/invalidate", "POST /api/v1/performance/cache/warm", "GET /api/v1/performance/cache/hit-rate",
		"POST /api/v1/performance/cache/extend-ttls", "GET /api/v1/performance/jobs/{queue}",
		"POST /api/v1/performance/jobs/{queue}/pause", "POST /api/v1/performance/jobs/{queue}/resume",
		"POST /api/v1/performance/jobs/{queue}/drain", "POST /api/v1/performance/jobs/{queue}/retry-failed",
		"GET /api/v1/admin/read-only-mode", "POST /api/v1/admin/read-only-mode", "DELETE /api/v1/admin/read-only-mode",
		"POST /api/v1/admin/incident", "DELETE /api/v1/admin/incident",
	} {
		if !done[want] {
			t.Errorf("the contract has no %s", want)
		}
	}
	if after := epoch(); after != before {
		t.Errorf("dry runs changed read-only mode: epoch %v, then %v", before, after)
	}
	if paused := call[struct{ Paused bool }](t, "GET", s.Admin+"/api/v1/performance/jobs/normal", ""); paused.Paused {
		t.Error("a dry run paused a queue")
	}
	if status, _, page := send(t, "GET", s.Admin+"/", ""); status != http.StatusOK || !strings.Contains(string(page), "leadplatform") {
		t.Errorf("the console: %d %.200s", status, page)
	}
}
