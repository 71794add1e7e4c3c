package admin_test

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/admin"
)

// writable has an operation of every method that writes; done counts what ran.
func writable(t *testing.T, opts *admin.Options) (h *admin.Handler, done *int) {
	done = new(int)
	ops := sample()[:1]
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		ops = append(ops, admin.Operation{Method: method, Path: "/write", ID: "write." + method, Role: admin.Operator, Do: func(context.Context, *admin.Call) (any, error) {
			*done++
			return nil, nil
		}})
	}
	return mount(t, opts, ops...), done
}

// Every method, every Sec-Fetch-Site, every kind of Origin, every caller: what a browser sends from elsewhere does nothing,
// whoever the browser's user is, and a right origin lets nobody in who has no token.
func TestCSRFMatrix(t *testing.T) {
	const self = "localhost:3002"
	sites := map[string]bool{"": true, "same-origin": true, "none": true, "same-site": false, "cross-site": false, "SAME-ORIGIN": false, "same-origin, cross-site": false, "x": false}
	origins := map[string]bool{
		"": true, "http://" + self: true, "http://localhost:3000": false, "http://127.0.0.1:3002": false, "http://localhost.evil.example:3002": false,
		"http://evil.example": false, "http://" + self + "@evil.example": false, "null": false, "file://": false, "\x00": false, "%": false,
	}
	callers := map[string]struct {
		change func(*http.Request)
		refuse int // whatever the origin
	}{
		"nobody": {func(*http.Request) {}, 401}, "a wrong token": {bearing("wrong-secret-0123456789"), 401},
		"a viewer": {bearing(viewerSecret), 403}, "an operator": {bearing(operatorSecret), 0},
	}
	guarded, guardedDone := writable(t, &admin.Options{Tokens: tokens(), WriteRate: 1e6})
	loopback, loopbackDone := writable(t, &admin.Options{AllowInsecureLoopback: true, WriteRate: 1e6})
	tried := 0
	try := func(h *admin.Handler, done *int, method, site, origin string, change func(*http.Request), want int, who string) {
		t.Helper()
		r := request(method, "/write", "", change)
		if site != "" {
			r.Header.Set("Sec-Fetch-Site", site)
		}
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		before := *done
		w := serve(h, r)
		if ran := *done - before; w.Code != want || ran != map[bool]int{true: 1}[want == 200] {
			t.Errorf("%s by %s from %q %q is %d and ran %d times, want %d: %s", method, who, site, origin, w.Code, ran, want, w.Body)
		}
		for name := range w.Header() {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s is shared with other sites: %s", method, name)
			}
		}
		tried++
	}
	for site, near := range sites {
		for origin, own := range origins {
			allowed := near && (site != "" || own)
			status := func(refuse int) int {
				switch {
				case refuse != 0:
					return refuse
				case !allowed:
					return 403
				}
				return 200
			}
			for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
				for who, caller := range callers {
					try(guarded, guardedDone, method, site, origin, caller.change, status(caller.refuse), who)
				}
				try(loopback, loopbackDone, method, site, origin, func(*http.Request) {}, status(0), "loopback")
			}
			// Methods that browsers take for harmless do nothing, and the others are none of ours.
			for _, method := range []string{"GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "CONNECT", "post"} {
				try(loopback, loopbackDone, method, site, origin, func(*http.Request) {}, 405, "loopback")
			}
		}
	}
	if tried != 8*11*(4*5+7) {
		t.Errorf("%d requests", tried)
	}
}

// A page in an operator's browser, or a viewer, can neither use up the writes of those who may nor push their records out.
func TestRefusedSpendNobodysWrites(t *testing.T) {
	certificate := func(r *http.Request) (admin.Identity, bool) { // which the browser adds by itself
		return admin.Identity{Name: "anna", Role: admin.Operator}, r.Header.Get("X-Client-Cert") == "anna"
	}
	for name, test := range map[string]struct {
		opts         admin.Options
		anna, attack []func(*http.Request)
	}{
		"another site's page, loopback":      {admin.Options{AllowInsecureLoopback: true}, nil, []func(*http.Request){header("Sec-Fetch-Site", "cross-site")}},
		"another site's page, a certificate": {admin.Options{Authorizer: certificate}, []func(*http.Request){header("X-Client-Cert", "anna")}, []func(*http.Request){header("X-Client-Cert", "anna"), header("Origin", "https://evil.example")}},
		"a viewer":                           {admin.Options{Tokens: tokens()}, []func(*http.Request){bearing(operatorSecret)}, []func(*http.Request){bearing(viewerSecret)}},
	} {
		t.Run(name, func(t *testing.T) {
			test.opts.AuditSize, test.opts.WriteRate = 100, 0.001 // nothing comes back while the test runs
			h, done := writable(t, &test.opts)
			codes := map[int]int{}
			for range 500 {
				codes[serve(h, request("POST", "/write", "", test.attack...)).Code]++
			}
			if codes[403] == 0 || codes[429] == 0 || codes[403]+codes[429] != 500 || *done != 0 {
				t.Errorf("the attack: %v, %d done", codes, *done)
			}
			if w := serve(h, request("POST", "/write", "", test.anna...)); w.Code != 200 {
				t.Errorf("who may write is answered %d %s", w.Code, w.Body)
			}
			for range 500 {
				serve(h, request("POST", "/write", "", test.attack...))
			}
			list := decode[auditList](t, serve(h, request("GET", "/api/v1/admin/audit?limit=1000", "", test.anna...)))
			if !slices.ContainsFunc(list.Records, func(r auditRecord) bool { return r.Status == 200 }) || len(list.Records) > 110 || list.Suppressed < 900 {
				t.Errorf("the record of the write is gone, or %d records, %d suppressed", len(list.Records), list.Suppressed)
			}
		})
	}
}

// Whatever an instance, a metric, a reason or an actor is called, the page shows it as text.
func TestConsoleShowsMarkupAsText(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>'{{.}}\u003cb onmouseover=alert(2)\u003e</style></textarea>`
	quoted := strings.NewReplacer(`"`, `\"`).Replace(evil)
	is := func(path, data string) admin.Operation {
		return answering(path, strings.ReplaceAll(data, "EVIL", quoted))
	}
	ops := []admin.Operation{
		is("/api/v1/performance/capacity/dashboard", `{"alerts":[{"labels":{"alertname":"EVIL","severity":"EVIL","queue":"EVIL","EVIL":"EVIL"},"annotations":{"summary":"EVIL","runbook":"javascript:alert(1)//EVIL"},
			"state":"EVIL","value":1,"threshold":1,"unit":"EVIL","why":{"text":"EVIL"}}],
			"metrics":[{"id":"EVIL","title":"EVIL","labels":{"EVIL":"EVIL","pool":"EVIL"},"value":1,"unit":"EVIL","op":"EVIL","warning":1,"critical":2,"state":"EVIL"}],
			"instances":["EVIL"],"scope":"EVIL","degraded":"EVIL"}`),
		is("/api/v1/performance/capacity/history", `{"start":"2026-01-01T00:00:00Z","step_seconds":1,"series":[{"metric":"EVIL","scope":{"queue":"EVIL"},"unit":"EVIL","values":[1,2,3]}]}`),
		is("/api/v1/performance/capacity/bottlenecks", `{"verdict":"EVIL","resources":[{"title":"EVIL","labels":{"EVIL":"EVIL"},"utilization":0.5,"state":"EVIL","status":"EVIL","step":"EVIL"}]}`),
		is("/api/v1/performance/jobs", `{"queues":[{"queue":"EVIL","waiting":7}]}`),
		is("/api/v1/performance/cache/hit-rate", `{"total":{"lookups":10,"by_result":{"EVIL":3},"rate":0.7},"views":{"EVIL":{"rate":null}}}`),
		is("/api/v1/performance/database/replication", `{"nodes":[{"name":"EVIL","role":"EVIL","zone":"EVIL","up":false,"staleness_ns":-1}],"streams":[]}`),
		is("/api/v1/admin/read-only-mode", `{"enabled":true,"reason":"EVIL","actor":"EVIL","phase":"EVIL","tier":"EVIL","tenants":["EVIL"],"instances":2,"acknowledged":1,"missing":["EVIL"]}`),
		noted("POST", "/api/v1/performance/jobs/{queue}/pause", "jobs.pause"),
	}
	h := mount(t, &admin.Options{Title: evil, Authorizer: func(*http.Request) (admin.Identity, bool) {
		return admin.Identity{Name: evil, Role: admin.Operator}, true
	}}, ops...)
	h.Record(admin.Record{Actor: evil, Role: "operator", Operation: evil, Method: evil, Path: evil, Remote: evil, Error: evil, Detail: evil, Status: 200})
	serve(h, request("POST", "/api/v1/performance/jobs/"+url.PathEscape(evil)+"/pause?"+url.QueryEscape(evil), evil))
	for _, target := range []string{"/", "/console/state", "/console/confirm?do=pause&name=" + url.QueryEscape(evil), "/console/confirm?do=" + url.QueryEscape(evil)} {
		page := serve(h, request("GET", target, "")).Body.String()
		lower := strings.ToLower(page)
		for _, part := range []string{"<img", "<script>alert", "<b ", `"javascript:`, "ZgotmplZ"} {
			if strings.Contains(lower, strings.ToLower(part)) {
				at := strings.Index(lower, strings.ToLower(part))
				t.Errorf("%s holds %s: …%s…", target, part, page[max(0, at-80):min(len(page), at+80)])
			}
		}
		if !strings.Contains(target, "do=%") && !strings.Contains(page, "&lt;img") {
			t.Errorf("%s does not show what it was given:\n%s", target, page)
		}
		balanced(t, target, page)
	}
}
