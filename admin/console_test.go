package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/admin"
)

// answering mounts a GET that answers with JSON as it stands.
func answering(path, data string) admin.Operation {
	return admin.Operation{Method: "GET", Path: path, ID: "sample." + regexp.MustCompile(`[^a-z]+`).ReplaceAllString(path, "-"), Do: func(context.Context, *admin.Call) (any, error) {
		return json.RawMessage(data), nil
	}}
}

func noted(method, path, id string) admin.Operation {
	return admin.Operation{Method: method, Path: path, ID: id, Role: admin.Operator, Do: func(context.Context, *admin.Call) (any, error) { return nil, nil }}
}

const attack = `<img src=x onerror=alert(1)>\"'`

func platform() []admin.Operation {
	return []admin.Operation{
		answering("/api/v1/performance/capacity/dashboard", `{"alerts":[{"labels":{"alertname":"QueueDepthHigh","severity":"critical","queue":"`+attack+`"},"annotations":{"summary":"deep"},"state":"firing","activeAt":"2026-01-01T00:00:00Z","value":6000,"threshold":5000,"unit":"jobs"}],
			"metrics":[{"id":"api_latency_p95","title":"API latency (p95)","value":0.25,"unit":"seconds","op":"above","warning":0.2,"critical":0.5,"state":"warning"},
			{"id":"cache_hit_rate","title":"Cache hit rate","value":null,"unit":"ratio","op":"below","warning":0.8,"critical":0.6,"state":"unknown"},
			{"id":"queue_depth","title":"Queue depth","labels":{"queue":"a"},"value":1,"unit":"jobs","op":"above","warning":1000,"critical":5000,"state":"ok"},
			{"id":"queue_depth","title":"Queue depth","labels":{"queue":"b"},"value":6000,"unit":"jobs","op":"above","warning":1000,"critical":5000,"state":"critical"}],
			"instances":["a","b"],"scope":"fleet","new_field":{"x":1}}`),
		answering("/api/v1/performance/capacity/bottlenecks", `{"verdict":"the pool limits first","resources":[{"title":"Pool","utilization":0.5,"state":"ok","status":"ok"},{"title":"Workers"}]}`),
		answering("/api/v1/performance/jobs", `{"queues":[{"queue":"low/priority","waiting":7},{"queue":"`+attack+`","paused":true,"rate_limit":{"max":10,"per_seconds":1}}],"unread":[{"queue":"broken","error":"its state cannot be read"}]}`),
		answering("/api/v1/performance/cache/hit-rate", `{"total":{"lookups":10,"by_result":{"miss":3},"rate":0.7},"views":{"lead":{"rate":null}}}`),
		answering("/api/v1/performance/database/replication", `{"nodes":[{"name":"127.0.0.1:5432","role":"replica","up":false,"staleness_ns":-1},{"name":"other","role":"replica","staleness_ns":1000000}],"streams":[]}`),
		answering("/api/v1/admin/read-only-mode", `{"enabled":true,"reason":"`+attack+`","instances":2,"acknowledged":1,"missing":["b"]}`),
		noted("DELETE", "/api/v1/admin/read-only-mode", "mode.off"), noted("POST", "/api/v1/performance/jobs/{queue}/pause", "jobs.pause"), noted("POST", "/api/v1/performance/jobs/{queue}/resume", "jobs.resume"),
	}
}

func TestConsoleShowsWhatIsMounted(t *testing.T) {
	h := mount(t, &admin.Options{Title: "Lead <platform>", AllowInsecureLoopback: true, Checks: []admin.Check{{Name: "redis", Ready: down, Optional: true}}}, platform()...)
	for _, path := range []string{"/", "/console/state"} {
		w := serve(h, request("GET", path, ""))
		page := w.Body.String()
		if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
			t.Fatalf("%s: %d %s", path, w.Code, page)
		}
		if csp := w.Header().Get("Content-Security-Policy"); csp != "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "+
			"base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'" {
			t.Errorf("%s: %s", path, csp)
		}
		for _, part := range []string{
			"1 alert is firing", "fleet of 2 instances", "QueueDepthHigh", "6000 jobs", "API latency (p95)", "250 ms", `<span>above</span> <span class="lim w">200 ms</span> <span class="lim c">500 ms</span>`, "the pool limits first",
			"low/priority", `data-path="api/v1/performance/jobs/low%2Fpriority/pause"`, "/resume", "70 %", "127.0.0.1:5432", "down", "1 ms", "read-only", "1 of 2 instances agree", "missing b", "Allow writes again",
			"connection refused", "its state cannot be read",
		} {
			if !strings.Contains(page, part) {
				t.Errorf("%s does not show %q", path, part)
			}
		}
		if strings.Contains(page, "<img") || strings.Contains(page, " style=") || strings.Contains(page, "onclick") || strings.Contains(page, "ZgotmplZ") {
			t.Errorf("%s holds markup that it must not", path)
		}
		balanced(t, path, page)
	}
	if page := serve(h, request("GET", "/", "")).Body.String(); !strings.Contains(page, "<title>Lead &lt;platform&gt;</title>") || !strings.Contains(page, "noscript") {
		t.Error("the title is not escaped, or there is no way without a script")
	}
}

// balanced checks that tags close in order and ids are unique.
func balanced(t *testing.T, path, page string) {
	t.Helper()
	void := []string{"meta", "link", "input", "br", "!doctype"}
	var open []string
	for _, tag := range regexp.MustCompile(`<(/?)([a-zA-Z!][a-zA-Z0-9]*)([^<>]*)>`).FindAllStringSubmatch(page, -1) {
		switch {
		case slices.Contains(void, tag[2]), strings.HasSuffix(tag[3], "/"):
		case tag[1] == "":
			open = append(open, tag[2])
		case len(open) == 0 || open[len(open)-1] != tag[2]:
			t.Fatalf("%s: %s closes %v", path, tag[0], open)
		default:
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("%s: %v stay open", path, open)
	}
	ids := map[string]bool{}
	for _, id := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if ids[id[1]] {
			t.Errorf("%s: the id %q twice", path, id[1])
		}
		ids[id[1]] = true
	}
}

// With tokens, a stranger's page holds no data, and a viewer's no buttons and nothing kept for operators.
func TestConsoleKeepsRoles(t *testing.T) {
	ops := platform()
	ops[2].Role = admin.Operator // the queues
	h := mount(t, &admin.Options{Title: "T", Tokens: tokens()}, ops...)
	if page := serve(h, request("GET", "/", "")).Body.String(); strings.Contains(page, "QueueDepthHigh") || !strings.Contains(page, "A token is needed") {
		t.Errorf("a stranger sees %s", page)
	}
	wantProblem(t, serve(h, request("GET", "/console/state", "")), 401)
	viewer := serve(h, request("GET", "/console/state", "", bearing(viewerSecret))).Body.String()
	if !strings.Contains(viewer, "QueueDepthHigh") || strings.Contains(viewer, "low/priority") || strings.Contains(viewer, "<button") {
		t.Errorf("a viewer sees %s", viewer)
	}
	all := mount(t, &admin.Options{Tokens: tokens()}, platform()...)
	if page := serve(all, request("GET", "/console/state", "", bearing(viewerSecret))).Body.String(); !strings.Contains(page, "low/priority") || strings.Contains(page, "<button") {
		t.Errorf("a viewer of the queues sees %s", page)
	}
	operator := serve(h, request("GET", "/console/state", "", bearing(operatorSecret))).Body.String()
	if !strings.Contains(operator, "low/priority") || !strings.Contains(operator, "<button") {
		t.Errorf("an operator sees %s", operator)
	}
}

// An operation that fails, or answers in a shape that the page does not know, takes only its own part away.
func TestConsoleSurvivesItsParts(t *testing.T) {
	fail := func(err error) func(context.Context, *admin.Call) (any, error) {
		return func(context.Context, *admin.Call) (any, error) { return nil, err }
	}
	ops := platform()
	ops[1].Do = fail(errors.New("hunter2"))
	ops[2].Do = func(context.Context, *admin.Call) (any, error) { panic("hunter2") }
	ops[3] = answering("/api/v1/performance/cache/hit-rate", `[1,2]`)
	ops[4].Do = fail(admin.Unavailable(nil, "the database does not answer"))
	page := serve(mount(t, nil, ops...), request("GET", "/", "")).Body.String()
	for _, part := range []string{"QueueDepthHigh", "read-only", "bottlenecks: the operation failed", "hit-rate: the operation failed", "the database does not answer"} {
		if !strings.Contains(page, part) {
			t.Errorf("the page does not show %q", part)
		}
	}
	if strings.Contains(page, "hunter2") {
		t.Error("the page shows an error that was not written for it")
	}
	for _, data := range []string{`{}`, `{"alerts":null,"metrics":null}`, `{"alerts":[{}],"metrics":[{}]}`, `null`} {
		w := serve(mount(t, nil, answering("/api/v1/performance/capacity/dashboard", data)), request("GET", "/", ""))
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", data, w.Code, w.Body)
		}
		balanced(t, data, w.Body.String())
	}
	if w := serve(mount(t, nil), request("GET", "/", "")); w.Code != 200 || !strings.Contains(w.Body.String(), "All is well") {
		t.Errorf("with nothing mounted: %d %s", w.Code, w.Body)
	}
}

func TestConsoleScript(t *testing.T) {
	script, err := os.ReadFile("page/console.js")
	if err != nil {
		t.Fatal(err)
	}
	if w := serve(mount(t, nil), request("GET", "/console.js", "")); !bytes.Equal(w.Body.Bytes(), script) || w.Header().Get("Content-Type") != "text/javascript; charset=utf-8" {
		t.Error("another script is served")
	}
	for _, word := range []string{"innerHTML", "eval(", "localStorage, \"token\"", "http://", "https://"} {
		if strings.Contains(strings.ReplaceAll(string(script), "http://www.w3.org/2000/svg", ""), word) {
			t.Errorf("the script holds %s", word)
		}
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return // the browser's own parser is the judge elsewhere
	}
	if out, err := exec.Command(node, "--check", "page/console.js").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// Whatever labels a metric's scope has, its card says which row is whose; an alert's own labels are no scope.
func TestConsoleNamesScopes(t *testing.T) {
	page := serve(mount(t, nil, answering("/api/v1/performance/capacity/dashboard", `{
		"alerts":[{"labels":{"alertname":"CacheMemoryHigh","severity":"warning","metric":"cache_memory","server":"10.0.0.1:6379"},"state":"firing","unit":"ratio"}],
		"metrics":[{"id":"db_pool_utilization","title":"Connection pool","labels":{"role":"replica","pool":"leads"},"value":0.5,"unit":"ratio"},
		{"id":"cache_memory","title":"Cache memory","labels":{"server":"10.0.0.1:6379"},"value":0.85,"unit":"ratio"},
		{"id":"cache_memory","title":"Cache memory","labels":{"server":"10.0.0.2:6379"},"value":0.5,"unit":"ratio"},
		{"id":"db_size","title":"Database size","labels":{"datname":"shop"},"value":1024,"unit":"bytes"}]}`)), request("GET", "/", "")).Body.String()
	for _, part := range []string{
		`<p class="dim scope">leads · replica</p>`, `<li><span class="scope">10.0.0.1:6379</span>`, `<li><span class="scope">10.0.0.2:6379</span>`, `<p class="dim scope">shop</p>`,
		`<strong>CacheMemoryHigh</strong> <span class="dim">10.0.0.1:6379</span>`,
	} {
		if !strings.Contains(page, part) {
			t.Errorf("the page does not show %q:\n%s", part, page)
		}
	}
}

// Thresholds are the dashboard's; without it a bar has no marks and a rate no colour.
func TestConsoleTakesThresholdsFromTheDashboard(t *testing.T) {
	ops := []admin.Operation{
		answering("/api/v1/performance/cache/hit-rate", `{"total":{"lookups":10,"rate":0.45}}`),
		answering("/api/v1/performance/capacity/bottlenecks", `{"resources":[{"title":"Pool","labels":{"pool":"leads"},"utilization":0.55,"state":"ok"}]}`),
	}
	const bare = `<rect class="fill" width="45.0" height="6"/></svg></td><td class="num unknown">45 %`
	if page := serve(mount(t, nil, ops...), request("GET", "/", "")).Body.String(); !strings.Contains(page, bare) || strings.Contains(page, `class="mark`) {
		t.Errorf("without a dashboard: %s", page)
	}
	ops = append(ops, answering("/api/v1/performance/capacity/dashboard", `{"metrics":[
		{"id":"cache_hit_rate","title":"Cache hit rate","value":null,"unit":"ratio","op":"below","warning":0.5,"critical":0.4},
		{"id":"db_pool_utilization","title":"Pool","value":null,"unit":"ratio","op":"above","warning":0.6,"critical":0.7}]}`))
	page := serve(mount(t, nil, ops...), request("GET", "/", "")).Body.String()
	for _, part := range []string{`class="num warning">45 %`, `"mark w" x="76.9"`, `"mark w" x="60.0"`, `"mark c" x="70.0"`} {
		if !strings.Contains(page, part) {
			t.Errorf("the page does not show %s:\n%s", part, page)
		}
	}
}
