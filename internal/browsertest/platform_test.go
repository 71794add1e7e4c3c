package browsertest

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/readonly"
)

// hostile is what must be shown as text wherever it appears.
const hostile = `<img src=x onerror="document.hacked=1">`

// site is a management listener with a real switch, and reports that the test writes.
type site struct {
	*httptest.Server
	handler *admin.Handler
	mode    *readonly.Switch

	mu       sync.Mutex
	requests []string // method, path, status
	down     bool
	broken   bool // whether queues refuse
	paused   map[string]bool
}

type options struct {
	admin     admin.Options
	noHistory bool
	prefix    string
	store     readonly.Store // zero means one of its own
	mode      readonly.Options
}

func serve(t *testing.T, o options) *site {
	t.Helper()
	o.mode.Instance = "one"
	mode, err := readonly.New(o.store, &o.mode)
	must(t, err)
	incident, err := readonly.NewIncident(mode, readonly.Step{
		Name: "relief",
		Do:   func(context.Context) (any, error) { return nil, nil },
		Undo: func(context.Context, json.RawMessage) (any, error) { return nil, nil },
	})
	must(t, err)
	s := &site{mode: mode, paused: map[string]bool{}}
	if o.admin.Tokens == nil {
		o.admin.AllowInsecureLoopback = !o.noWrites()
	}
	if o.admin.Title == "" {
		o.admin.Title = "lead platform"
	}
	s.handler, err = admin.New(slices.Concat(mode.Operations(), incident.Operations(), s.operations(o)), &o.admin)
	must(t, err)
	var handler http.Handler = s.handler
	if o.prefix != "" {
		handler = http.StripPrefix(o.prefix, handler)
	}
	s.Server = httptest.NewServer(s.watch(handler))
	t.Cleanup(s.Close)
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = mode.Run(ctx) })
	t.Cleanup(func() { cancel(); group.Wait() })
	for mode.Ready(t.Context()) != nil { // Run has begun and ends, so this ends too
		time.Sleep(time.Millisecond)
	}
	return s
}

func (o options) noWrites() bool { return strings.HasPrefix(o.admin.Title, "read ") }

// watch notes requests, and cuts them off while the site is down.
func (s *site) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		down := s.down
		s.mu.Unlock()
		if down {
			panic(http.ErrAbortHandler)
		}
		status := &statusWriter{ResponseWriter: w}
		next.ServeHTTP(status, r)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requests = append(s.requests, fmt.Sprintf("%s %s %d", r.Method, r.URL.Path, status.status))
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (s *site) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// count says how many requests have begun with the text.
func (s *site) count(begin string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if strings.HasPrefix(r, begin) {
			n++
		}
	}
	return n
}

func (s *site) isPaused(queue string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paused[queue]
}

func (s *site) operations(o options) []admin.Operation {
	get := func(path string, reply func() any) admin.Operation {
		return admin.Operation{Method: "GET", Path: "/api/v1/performance/" + path, ID: "site." + regexp.MustCompile(`[^a-z]+`).ReplaceAllString(path, "-"),
			Do: func(context.Context, *admin.Call) (any, error) { return reply(), nil }}
	}
	raw := func(format string, args ...any) func() any {
		return func() any { return json.RawMessage(fmt.Sprintf(format, args...)) }
	}
	out := []admin.Operation{
		get("capacity/bottlenecks", raw(`{"verdict":"the connection pool limits first, at 412 requests a second","resources":[
			{"title":"Connection pool","labels":{"pool":"db"},"utilization":0.62,"ceiling_per_second":412.5,"state":"ok","status":"ok","step":"Raise DATABASE_POOL_MAX."},
			{"title":"CPU","utilization":0.31,"ceiling_per_second":880,"state":"ok","status":"ok","step":%q},{"title":"Workers","status":"not enough data: 3 points"}]}`, hostile)),
		get("jobs", func() any { return s.jobs() }),
		get("sessions", raw(`{"since":"2026-01-02T15:04:05Z","events":[{"title":"Log-ins","count":12345},{"title":"Changes made too late, lost","count":3,"trouble":true},
			{"title":"Failures of the store","count":0,"trouble":true},{"title":%q,"count":1}]}`, hostile)),
		get("cache/hit-rate", raw(`{"total":{"lookups":123456,"by_result":{"miss":300,"hit_l1":900},"rate":0.86},"views":{%q:{"lookups":12,"rate":0.7}}}`, hostile)),
		get("database/replication", raw(`{"nodes":[{"name":"10.0.0.1:5432","role":"primary","up":true,"lsn":"0/5A7F2C8","in_flight":3,"latency_ns":812345},
			{"name":"10.0.0.2:5432","role":"replica","up":true,"lsn":"0/5A7F2C8","staleness_ns":3500000,"latency_ns":512345},
			{"name":%q,"role":"replica","up":false,"staleness_ns":-1,"advice":%q}]}`, hostile, hostile)),
	}
	scoped := func(path string, reply func(scope string) any) {
		op := get(path, nil)
		op.Params = []admin.Param{{Name: "scope", In: "query", Type: "string"}}
		op.Do = func(_ context.Context, call *admin.Call) (any, error) { return reply(call.Query("scope")), nil }
		out = append(out, op)
	}
	scoped("capacity/dashboard", dashboard)
	if !o.noHistory {
		scoped("capacity/history", history)
	}
	for _, verb := range []string{"pause", "resume", "retry-failed"} {
		out = append(out, admin.Operation{Method: "POST", Path: "/api/v1/performance/jobs/{queue}/" + verb, ID: "jobs." + verb, Role: admin.Operator,
			Do: func(_ context.Context, call *admin.Call) (any, error) {
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.broken {
					return nil, admin.Conflict("the queues rest")
				}
				s.paused[call.Path("queue")] = verb == "pause"
				return nil, nil
			}})
	}
	return out
}

func (s *site) jobs() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	queues := []any{}
	for i, name := range []string{"critical", "low-priority", hostile} {
		queues = append(queues, map[string]any{"queue": name, "waiting": 120 * i, "active": 4, "failed": i, "paused": s.paused[name],
			"oldest_waiting_seconds": 0.4, "run_p95_seconds": 1.25, "rate_limit": map[string]any{"max": 10, "per_seconds": 1}})
	}
	return map[string]any{"queues": queues}
}

// metric is one of the dashboard, with its history made from base.
type metric struct {
	id, title, unit, op string
	warning, critical   float64
	base                float64
	scopes              []string
}

var metrics = []metric{
	{id: "api_latency_p95", title: "API latency (p95)", unit: "seconds", op: "above", warning: .2, critical: .5, base: .16},
	{id: "api_error_rate", title: "API error rate", unit: "ratio", op: "above", warning: .001, critical: .01, base: 0},
	{id: "api_throughput", title: "API throughput", unit: "per_second", base: 61},
	{id: "db_pool_utilization", title: "Connection pool", unit: "ratio", op: "above", warning: .8, critical: .9, base: .4},
	{id: "cache_hit_rate", title: "Cache hit rate", unit: "ratio", op: "below", warning: .8, critical: .6, base: .86},
	{id: "cache_memory", title: "Cache memory", unit: "ratio", op: "above", warning: .8, critical: .9, base: .02, scopes: []string{"10.0.0.7:6379", "10.0.0.8:6379", "10.0.0.9:6379"}},
	{id: "queue_depth", title: "Queue depth", unit: "jobs", op: "above", warning: 1000, critical: 5000, base: 3800, scopes: []string{"critical", hostile}},
}

func (m metric) at(i, scope int) float64 {
	return m.base * (1 + .3*math.Sin(float64(i)/11+float64(scope)) + .1*math.Sin(float64(i)/3)) / float64(1+scope)
}

const points = 200

func (m metric) each(visit func(scope map[string]string, n int)) {
	if m.scopes == nil {
		visit(map[string]string{}, 0)
	}
	for n, scope := range m.scopes {
		visit(map[string]string{"queue": scope}, n)
	}
}

// part is how much of the fleet's load one instance has.
func part(scope string) float64 {
	if scope == "instance" {
		return .5
	}
	return 1
}

func dashboard(scope string) any {
	reach, instances := "fleet", []string{"one", "two"}
	if scope == "instance" {
		reach, instances = scope, instances[:1]
	}
	list := []any{}
	for _, m := range metrics {
		m.each(func(labels map[string]string, n int) {
			state := "ok"
			if m.id == "queue_depth" && n == 0 {
				state = "warning"
			}
			entry := map[string]any{"id": m.id, "title": m.title, "labels": labels, "value": m.at(points-1, n) * part(scope), "unit": m.unit, "op": m.op, "state": state}
			if m.op != "" {
				entry["warning"], entry["critical"] = m.warning, m.critical
			}
			list = append(list, entry)
		})
	}
	alert := func(name, severity, queue string) any {
		return map[string]any{"labels": map[string]string{"alertname": name, "severity": severity, "queue": queue},
			"annotations": map[string]string{"summary": "Queue " + queue + " is deep.", "runbook": "Queue Backlog: add workers."},
			"state":       "firing", "activeAt": time.Now().Add(-3 * time.Minute), "value": 3950, "threshold": 1000, "unit": "jobs"}
	}
	return map[string]any{"alerts": []any{alert(hostile, "critical", hostile), alert("QueueDepthHigh", "warning", "critical")}, "metrics": list,
		"instances": instances, "scope": reach}
}

func history(scope string) any {
	series := []any{}
	for _, m := range metrics {
		m.each(func(labels map[string]string, n int) {
			values := make([]any, points)
			for i := range values {
				if i < 100 || i > 110 { // nobody looked
					values[i] = m.at(i, n) * part(scope)
				}
			}
			entry := map[string]any{"metric": m.id, "scope": labels, "unit": m.unit, "values": values, "warning": nil, "critical": nil}
			if m.op != "" {
				entry["warning"], entry["critical"] = m.warning, m.critical
			}
			series = append(series, entry)
		})
	}
	start := time.Date(2026, 1, 2, 15, 0, 0, 0, time.UTC)
	return map[string]any{"start": start, "step_seconds": 15, "series": series}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
