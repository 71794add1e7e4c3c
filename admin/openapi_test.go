package admin_test

import (
	"context"
	"encoding/json"
	"net/http"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

type base struct {
	Name string `json:"name"`
}

type node struct {
	base
	Children []node             `json:"children,omitempty"`
	At       time.Time          `json:"at"`
	Lag      *float64           `json:"lag"`
	Raw      json.RawMessage    `json:"raw,omitempty"`
	By       map[string]int     `json:"by"`
	Secret   string             `json:"-"`
	Wait     time.Duration      `json:"wait"`
	Any      any                `json:"any"`
	Inner    struct{ X uint16 } `json:"inner"`
	Quoted   int64              `json:"quoted,string"`
	//lint:ignore U1000 the schema must not show it
	hidden int
}

type box[T any] struct {
	Item T `json:"item"`
}

func documented() []admin.Operation {
	do := func(context.Context, *admin.Call) (any, error) { return node{}, nil }
	return append(sample(),
		admin.Operation{Method: "GET", Path: "/node", ID: "node.get", Reply: node{}, Do: do},
		admin.Operation{Method: "GET", Path: "/boxes", ID: "node.boxes", Reply: []box[node]{}, Do: do},
		admin.Operation{Method: "POST", Path: "/node", ID: "node.start", Role: admin.Operator, Body: box[base]{}, Reply: &admin.Started{}, Do: do},
	)
}

// What is served is in the document and the other way round.
func TestDocumentIsWhatIsServed(t *testing.T) {
	h := mount(t, &admin.Options{Tokens: tokens(), Metrics: http.NotFoundHandler(), WriteRate: 1e6}, documented()...)
	all := served(t, h, bearing(operatorSecret))
	paths := map[string][]string{}
	for route := range all {
		paths[route[1]] = append(paths[route[1]], route[0])
	}
	for _, path := range []string{
		"/", "/console.css", "/console.js", "/uplot.css", "/uplot.js", "/uplot.license", "/icon.svg", "/console/state", "/console/charts", "/console/confirm", "/livez", "/readyz", "/health", "/metrics", "/openapi.json", "/api/v1/admin/audit", "/api/v1/operations", "/api/v1/operations/id",
		"/api/v1/things/thing", "/api/v1/things/thing/pause", "/node", "/boxes",
	} {
		if paths[path] == nil {
			t.Errorf("%s is not described", path)
		}
	}
	if len(paths) != 22 {
		t.Errorf("%d paths are described", len(paths))
	}
	for path, want := range paths {
		if i := len(want); i > 0 {
			for _, method := range want {
				if method == "GET" {
					want = append(want, "HEAD")
				}
			}
		}
		sort.Strings(want)
		w := serve(h, request("PROPFIND", path, "", bearing(operatorSecret)))
		wantProblem(t, w, 405)
		if got := w.Header().Get("Allow"); got != strings.Join(want, ", ") {
			t.Errorf("%s is served for %s and described for %v", path, got, want)
		}
	}
	ids := map[any]bool{}
	for route, op := range all {
		if ids[op["operationId"]] {
			t.Errorf("%v twice", op["operationId"])
		}
		ids[op["operationId"]] = true
		_, open := op["security"].([]any)
		if !open {
			t.Errorf("%v has no security", route)
		}
		parameters, _ := json.Marshal(op["parameters"])
		if write := route[0] != "GET"; write != strings.Contains(string(parameters), `"dry_run"`) {
			t.Errorf("%v: dry_run in %s", route, parameters)
		}
	}
}

func TestSchemas(t *testing.T) {
	h := mount(t, nil, documented()...)
	w := serve(h, request("GET", "/openapi.json", ""))
	doc := decode[map[string]any](t, w)
	if doc["openapi"] != "3.1.0" {
		t.Fatal(doc["openapi"])
	}
	refs := strings.Count(w.Body.String(), `"$ref"`)
	if refs < 10 {
		t.Fatalf("%d references", refs)
	}
	walk(doc, func(ref string) {
		var at any = doc
		for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
			object, _ := at.(map[string]any)
			at = object[part]
		}
		if at == nil {
			t.Errorf("%s leads nowhere", ref)
		}
	})
	parts := doc["components"].(map[string]any)["schemas"].(map[string]any)
	got, _ := json.Marshal(parts["admin_test.node"])
	const want = `{"properties":{"any":{},"at":{"format":"date-time","type":"string"},"by":{"additionalProperties":{"type":"integer"},"type":["object","null"]},` +
		`"children":{"items":{"$ref":"#/components/schemas/admin_test.node"},"type":["array","null"]},"inner":{"properties":{"X":{"minimum":0,"type":"integer"}},"required":["X"],"type":"object"},` +
		`"lag":{"anyOf":[{"type":"number"},{"type":"null"}]},"name":{"type":"string"},"quoted":{"type":"string"},"raw":{},"wait":{"description":"nanoseconds","type":"integer"}},` +
		`"required":["name","at","lag","by","wait","any","inner","quoted"],"type":"object"}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	paths := doc["paths"].(map[string]any)
	post, _ := json.Marshal(paths["/node"].(map[string]any)["post"])
	for _, part := range []string{`"202"`, `"required":false`, `admin.Started`} {
		if !strings.Contains(string(post), part) {
			t.Errorf("POST /node does not say %s: %s", part, post)
		}
	}
	for name := range parts {
		if strings.ContainsAny(name, "[]/ ") {
			t.Errorf("the name %q fits no reference", name)
		}
	}
}

func walk(v any, f func(ref string)) {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			f(ref)
		}
		for _, inner := range v {
			walk(inner, f)
		}
	case []any:
		for _, inner := range v {
			walk(inner, f)
		}
	}
}
