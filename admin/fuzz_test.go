package admin_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/admin"
)

// Whatever is sent as a body, the answer is the decoded object or a problem, never a 500.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{``, `{}`, `{"reason":"a","limit":1}`, `{"reason":1}`, `{"a":{"b":[1,{"c":null}]}}`, `{"reason":"a"}{}`, `[`, `{"limit":1e400}`, `{"":0}`, "{\"reason\":\"\\ud800\"}", "\ufeff{}", `{"reason":"a","REASON":"b"}`} {
		f.Add(seed)
	}
	h := mount(f, &admin.Options{AllowInsecureLoopback: true, WriteRate: 1e9}, sample()...)
	f.Fuzz(func(t *testing.T, body string) {
		w := serve(h, request("POST", "/api/v1/things/x/pause", body))
		switch w.Code {
		case 200:
			got := decode[struct{ Body pauseBody }](t, w).Body
			var want pauseBody
			if trimmed := strings.TrimSpace(body); trimmed != "" {
				if err := json.Unmarshal([]byte(trimmed), &want); err != nil {
					t.Fatalf("%q was taken: %v", body, err)
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%q became %+v, want %+v", body, got, want)
			}
		case 400, 413:
			wantProblem(t, w, w.Code)
		default:
			t.Fatalf("%q: %d %s", body, w.Code, w.Body)
		}
	})
}

// Whatever path and query are sent, the answer is one of those an operation or the mounting gives, and dry_run is
// what the query says or a refusal.
func FuzzTarget(f *testing.F) {
	for _, seed := range [][2]string{{"/api/v1/things/x/pause", "dry_run=true"}, {"/api/v1/things/..%2f/pause", ""}, {"/api/v1/things/%2e%2e/pause", "dry_run"}, {"//", "a=1&a=2"}, {"/{$}", "%"}, {"/api/v1/things/{thing}/pause", "dry_run=true&x=1"}} {
		f.Add(seed[0], seed[1])
	}
	h := mount(f, &admin.Options{AllowInsecureLoopback: true, WriteRate: 1e9}, sample()...)
	f.Fuzz(func(t *testing.T, path, query string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || !strings.HasPrefix(path, "/") {
			t.Skip()
		}
		r := request("POST", "/", "")
		r.URL, r.RequestURI = &url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: query}, path
		w := serve(h, r)
		switch w.Code {
		case 200:
			reply := decode[struct {
				DryRun bool `json:"dry_run"`
				Thing  string
			}](t, w)
			if reply.DryRun != (query != "" && strings.Contains(query, "true")) || reply.Thing == "" || reply.Thing == ".." || strings.Contains(reply.Thing, "../") {
				t.Fatalf("%q %q: %s", path, query, w.Body)
			}
		case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed:
			wantProblem(t, w, w.Code)
		default:
			t.Fatalf("%q %q: %d %s", path, query, w.Code, w.Body)
		}
	})
}
