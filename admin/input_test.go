package admin_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/admin"
)

func TestBodies(t *testing.T) {
	type nested struct {
		Reason string            `json:"reason"`
		Limit  *int              `json:"limit"`
		Labels map[string]string `json:"labels"`
		Deep   json.RawMessage   `json:"deep"`
		Inner  struct {
			Names []string `json:"names"`
		} `json:"inner"`
	}
	calls := 0
	h := mount(t, &admin.Options{AllowInsecureLoopback: true, WriteRate: 1e6, MaxBody: 1 << 20},
		admin.Operation{Method: "POST", Path: "/x", ID: "x", Role: admin.Operator, Body: nested{}, Do: func(_ context.Context, call *admin.Call) (any, error) {
			calls++
			return admin.Body[nested](call), nil
		}},
		admin.Operation{Method: "POST", Path: "/none", ID: "none", Role: admin.Operator, Do: func(_ context.Context, call *admin.Call) (any, error) {
			calls++
			return nil, nil
		}})
	const form, jsonType = "application/x-www-form-urlencoded", "application/json"
	for name, test := range map[string]struct {
		path, contentType, body string
		status                  int
		field, text             string
	}{
		"curl -X POST":       {body: "", status: 200},
		"typed, empty":       {contentType: jsonType, body: "", status: 200},
		"white space":        {contentType: jsonType, body: " \n\t", status: 200},
		"object":             {contentType: jsonType, body: `{"reason":"load","limit":3}`, status: 200},
		"untyped object":     {body: `{"reason":"load"}`, status: 200},
		"charset":            {contentType: "application/json; charset=UTF-8", body: `{}`, status: 200},
		"same map keys fold": {body: `{"labels":{"a":"1","A":"2"}}`, status: 200},
		"form":               {contentType: form, body: `{"reason":"load"}`, status: 415, text: "Content-Type: application/json"},
		"form, empty":        {contentType: form, body: "", status: 415, text: "Content-Type: application/json"},
		"plain":              {contentType: "text/plain", body: `{}`, status: 415},
		"other charset":      {contentType: "application/json; charset=latin1", body: `{}`, status: 415},
		"broken type":        {contentType: "application/json; =", body: `{}`, status: 415},
		"unknown field":      {body: `{"reson":"load"}`, status: 400, field: "reson", text: "it takes reason, limit, labels, deep, inner"},
		"inner unknown":      {body: `{"inner":{"x":1}}`, status: 400, field: "x"},
		"wrong type":         {body: `{"limit":"3"}`, status: 400, field: "limit", text: "a number"},
		"inner wrong type":   {body: `{"inner":{"names":"a"}}`, status: 400, field: "inner.names", text: "an array"},
		"overflow":           {body: `{"limit":99999999999999999999}`, status: 400, field: "limit"},
		"twice":              {body: `{"reason":"a","reason":"b"}`, status: 400, field: "reason", text: "twice"},
		"twice, folded":      {body: `{"reason":"a","Reason":"b"}`, status: 400, text: "twice"},
		"twice inside":       {body: `{"deep":[{"a":1,"a":2}]}`, status: 400, field: "a", text: "twice"},
		"two objects":        {body: `{"reason":"a"}{"reason":"b"}`, status: 400, text: "follows"},
		"garbage after":      {body: `{"reason":"a"} x`, status: 400, text: "follows"},
		"array":              {body: `[1]`, status: 400, text: "one JSON object"},
		"null":               {body: `null`, status: 400, text: "one JSON object"},
		"text":               {body: `reason=load`, status: 400, text: "one JSON object"},
		"cut":                {body: `{"reason":"lo`, status: 400, text: "not JSON"},
		"bad utf-8":          {body: "{\"reason\":\"\xff\"}", status: 400, text: "UTF-8"},
		"deep":               {body: `{"deep":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, status: 400, text: "nested"},
		"1 MiB":              {body: `{"reason":"` + strings.Repeat("x", 1<<20-len(`{"reason":""}`)) + `"}`, status: 200},
		"1 MiB and a byte":   {body: `{"reason":"` + strings.Repeat("x", 1<<20+1-len(`{"reason":""}`)) + `"}`, status: 413, text: "1048576"},
		"none wanted":        {path: "/none", body: `{}`, status: 400, field: "body"},
		"none wanted, blank": {path: "/none", body: "\n", status: 200},
		"none wanted, large": {path: "/none", body: strings.Repeat(" ", 1<<20+1), status: 413},
	} {
		t.Run(name, func(t *testing.T) {
			path, before := test.path, calls
			if path == "" {
				path = "/x"
			}
			r := request("POST", path, test.body)
			if test.contentType != "" {
				r.Header.Set("Content-Type", test.contentType)
			}
			w := serve(h, r)
			if test.status == 200 {
				if w.Code != 200 || calls != before+1 {
					t.Fatalf("%d %.200s", w.Code, w.Body)
				}
				return
			}
			if p := wantProblem(t, w, test.status, test.text); p.Field != test.field && test.field != "" {
				t.Fatalf("field %q, want %q", p.Field, test.field)
			}
			if calls != before {
				t.Fatal("the operation was called")
			}
		})
	}
	t.Run("chunked and too large", func(t *testing.T) {
		r := request("POST", "/x", "")
		r.Body, r.ContentLength = io.NopCloser(io.LimitReader(zeros{}, 1<<40)), -1
		wantProblem(t, serve(h, r), 413)
	})
	t.Run("compressed", func(t *testing.T) {
		wantProblem(t, serve(h, request("POST", "/x", "{}", header("Content-Encoding", "gzip"))), 415, "Content-Encoding")
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestParams(t *testing.T) {
	h := mount(t, &admin.Options{AllowInsecureLoopback: true, WriteRate: 1e6}, append(sample(), admin.Operation{
		Method: "GET", Path: "/n/{n}", ID: "n", Params: []admin.Param{{Name: "n", In: "path", Type: "integer"}},
		Do: func(context.Context, *admin.Call) (any, error) { return nil, nil },
	})...)
	for target, want := range map[string]struct {
		status int
		field  string
	}{
		"GET /api/v1/things/x?deep=true&last=10m&top=-3":   {200, ""},
		"GET /api/v1/things/x?deep=1":                      {400, "deep"},
		"GET /api/v1/things/x?deep":                        {400, "deep"},
		"GET /api/v1/things/x?last=10":                     {400, "last"},
		"GET /api/v1/things/x?top=3.5":                     {400, "top"},
		"GET /api/v1/things/x?top=1&top=2":                 {400, "top"},
		"GET /api/v1/things/x?tpo=1":                       {400, "tpo"},
		"GET /api/v1/things/x?dry_run=true":                {400, "dry_run"},
		"GET /api/v1/things/x?a;b":                         {400, ""},
		"GET /api/v1/things/x?a=%zz":                       {400, ""},
		"GET /n/12":                                        {200, ""},
		"GET /n/twelve":                                    {400, "n"},
		"GET /api/v1/things/" + strings.Repeat("x", 1025):  {400, "thing"},
		"POST /api/v1/things/x/pause?dry_run=true":         {200, ""},
		"POST /api/v1/things/x/pause?dry_run=false":        {200, ""},
		"POST /api/v1/things/x/pause?dry_run":              {400, "dry_run"},
		"POST /api/v1/things/x/pause?dry_run=yes":          {400, "dry_run"},
		"POST /api/v1/things/x/pause?dry_run=True":         {400, "dry_run"},
		"POST /api/v1/things/x/pause?dryrun=true":          {400, "dryrun"},
		"POST /api/v1/things/x/pause?dry_run=1":            {400, "dry_run"},
		"POST /api/v1/things/x/pause?dry_run=true&dry_run": {400, "dry_run"},
	} {
		method, path, _ := strings.Cut(target, " ")
		w := serve(h, request(method, path, ""))
		if want.status == 200 {
			if w.Code != 200 {
				t.Errorf("%s: %d %s", target, w.Code, w.Body)
			}
			continue
		}
		if p := wantProblem(t, w, want.status); p.Field != want.field {
			t.Errorf("%s: field %q, want %q", target, p.Field, want.field)
		}
	}
	p := wantProblem(t, serve(h, request("GET", "/api/v1/things/x?tpo=1", "")), http.StatusBadRequest, "it takes deep, last, top")
	if p.Field != "tpo" {
		t.Error(p.Field)
	}
}
