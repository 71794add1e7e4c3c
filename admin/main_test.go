package admin_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	operatorSecret = "operator-secret-0123456789"
	viewerSecret   = "viewer-secret-0123456789ab"
)

func tokens() []admin.Token {
	return []admin.Token{
		{Name: "ops", Role: admin.Operator, Secret: operatorSecret},
		{Name: "eyes", Role: admin.Viewer, Secret: viewerSecret},
	}
}

type pauseBody struct {
	Reason string `json:"reason"`
	Limit  int    `json:"limit"`
}

// sample is a read, a write with a body and a write without one, as packages return them.
func sample() []admin.Operation {
	return []admin.Operation{{
		Method: "GET", Path: "/api/v1/things/{thing}", ID: "thing.get",
		Params: []admin.Param{{Name: "deep", In: "query", Type: "boolean"}, {Name: "last", In: "query", Type: "duration"}, {Name: "top", In: "query", Type: "integer"}},
		Do: func(_ context.Context, call *admin.Call) (any, error) {
			return map[string]any{"thing": call.Path("thing"), "deep": call.Query("deep"), "actor": call.Actor}, nil
		},
	}, {
		Method: "POST", Path: "/api/v1/things/{thing}/pause", ID: "thing.pause", Role: admin.Operator, Body: pauseBody{},
		Do: func(_ context.Context, call *admin.Call) (any, error) {
			return map[string]any{"thing": call.Path("thing"), "dry_run": call.DryRun, "body": admin.Body[pauseBody](call), "actor": call.Actor}, nil
		},
	}, {
		Method: "DELETE", Path: "/api/v1/things/{thing}", ID: "thing.delete", Role: admin.Operator,
		Do: func(_ context.Context, call *admin.Call) (any, error) { return nil, nil },
	}}
}

func mount(t testing.TB, opts *admin.Options, operations ...admin.Operation) *admin.Handler {
	t.Helper()
	h, err := admin.New(operations, opts)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// request is one from this machine, unless change says otherwise.
func request(method, target, body string, change ...func(*http.Request)) *http.Request {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, reader)
	r.Host, r.RemoteAddr = "localhost:3002", "127.0.0.1:40000"
	for _, f := range change {
		f(r)
	}
	return r
}

func bearing(secret string) func(*http.Request) { return header("Authorization", "Bearer "+secret) }

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func decode[T any](t testing.TB, w *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%d %q is not JSON: %v", w.Code, w.Body, err)
	}
	return v
}

// wantProblem checks status and shape, and that the text holds each part.
func wantProblem(t testing.TB, w *httptest.ResponseRecorder, status int, parts ...string) admin.Problem {
	t.Helper()
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("content type %q", got)
	}
	p := decode[admin.Problem](t, w)
	if p.Status != status || p.Title == "" || p.Detail == "" {
		t.Fatalf("not a whole problem: %s", w.Body)
	}
	for _, part := range parts {
		if !strings.Contains(p.Detail, part) {
			t.Fatalf("detail %q does not say %q", p.Detail, part)
		}
	}
	return p
}
