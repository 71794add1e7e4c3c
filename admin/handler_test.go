package admin_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/admin"
)

func TestServesOperations(t *testing.T) {
	h := mount(t, &admin.Options{AllowInsecureLoopback: true}, sample()...)
	w := serve(h, request("GET", "/api/v1/things/Lead?deep=true", ""))
	if w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"actor":"loopback","deep":"true","thing":"Lead"}` {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	w = serve(h, request("POST", "/api/v1/things/Lead/pause?dry_run=true", `{"reason":"load"}`))
	if w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"actor":"loopback","body":{"reason":"load","limit":0},"dry_run":true,"thing":"Lead"}` {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	w = serve(h, request("DELETE", "/api/v1/things/Lead", ""))
	if w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{}` {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w = serve(h, request("HEAD", "/api/v1/things/Lead", "")); w.Code != 200 {
		t.Fatalf("HEAD: %d", w.Code)
	}
}

func TestServesUnderAPrefix(t *testing.T) {
	h := mount(t, nil, sample()...)
	outer := http.NewServeMux()
	outer.Handle("/ops/", http.StripPrefix("/ops", h))
	w := serve(outer, request("GET", "/ops/api/v1/things/a%2Fb", ""))
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"thing":"a/b"`) {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
}

func TestUnknownPathAndMethod(t *testing.T) {
	h := mount(t, nil, sample()...)
	wantProblem(t, serve(h, request("GET", "/api/v1/nothing", "")), 404, "/openapi.json")
	w := serve(h, request("PUT", "/api/v1/things/Lead", ""))
	wantProblem(t, w, 405, "DELETE, GET, HEAD")
	if got := w.Header().Get("Allow"); got != "DELETE, GET, HEAD" {
		t.Fatalf("Allow %q", got)
	}
	wantProblem(t, serve(h, request("HEAD", "/api/v1/things/Lead/pause", "")), 405)
	wantProblem(t, serve(h, request("QUERY", "/livez", "")), 405)
	wantProblem(t, serve(h, request("POST", "/", "")), 405)
}

// A spelling that ServeMux would clean, or a proxy would, reaches no operation and is not redirected.
func TestPathTricks(t *testing.T) {
	h := mount(t, &admin.Options{Tokens: tokens()}, sample()...)
	for _, path := range []string{
		"/api/v1/admin/../things/Lead", "/api/v1/admin/%2e%2e/things/Lead", "/api/v1/admin/%2E./things/Lead", "//api/v1/things/Lead",
		"/api//v1/things/Lead", "/api/v1/things/Lead/", "/api/v1/things/./Lead", "/api/v1/things/..%2fLead", "/api/v1/things/%2e",
		"/api/v1/things/a%00b", "/api/v1/things/a%0ab", "/livez/../api/v1/things/Lead", "/livez/%2e%2e/api/v1/things/Lead", "/livez%2f..%2fx",
		"/API/v1/things/Lead", "/api/v1/things/%ff", "/api/v1/things/" + strings.Repeat("x", 3000),
	} {
		wantProblem(t, serve(h, request("GET", path, "")), 401)
		wantProblem(t, serve(h, request("GET", path, "", bearing(operatorSecret))), 404)
	}
	for _, name := range []string{"X-Http-Method-Override", "X-Method-Override", "X-Http-Method"} {
		w := serve(h, request("GET", "/api/v1/things/Lead", "", bearing(viewerSecret), header(name, "DELETE")))
		if w.Code != 200 || !strings.Contains(w.Body.String(), `"thing"`) {
			t.Fatalf("%s changed the method: %d %s", name, w.Code, w.Body)
		}
	}
}

func TestNewJoinsAllMistakes(t *testing.T) {
	do := func(context.Context, *admin.Call) (any, error) { return nil, nil }
	handler := http.NotFoundHandler()
	_, err := admin.New([]admin.Operation{
		{Method: "GET", Path: "/a/{x}", ID: "one", Do: do},
		{Method: "GET", Path: "/a/{y}", ID: "same-path", Do: do},
		{Method: "GET", Path: "/b", ID: "one", Do: do},
		{Method: "FETCH", Path: "/c", ID: "method", Do: do},
		{Method: "GET", Path: "/d", ID: "nothing"},
		{Method: "GET", Path: "/e", ID: "both", Do: do, Handler: handler},
		{Method: "POST", Path: "/f", ID: "viewer-write", Do: do},
		{Method: "GET", Path: "/g", ID: "get-body", Do: do, Body: pauseBody{}},
		{Method: "POST", Path: "/h", ID: "no-struct", Role: admin.Operator, Do: do, Body: "text"},
		{Method: "GET", Path: "i", ID: "no-slash", Do: do},
		{Method: "GET", Path: "/j/{x...}", ID: "tail", Do: do},
		{Method: "GET", Path: "/k/", ID: "slash", Do: do},
		{Method: "GET", Path: "/l", ID: "", Do: do},
		{Method: "GET", Path: "/m/{x}/{x}", ID: "twice", Do: do},
		{Method: "GET", Path: "/n", ID: "role", Role: 7, Do: do},
		{Method: "GET", Path: "/o", ID: "params", Do: do, Params: []admin.Param{
			{Name: "p", In: "path"}, {Name: "q", In: "body"}, {Name: "r", In: "query", Type: "float"}, {Name: "dry_run", In: "query"}, {Name: "s t", In: "query"},
			{Name: "u", In: "query"}, {Name: "u", In: "query"},
		}},
		{Method: "GET", Path: "/livez", ID: "taken", Do: do},
		{Method: "GET", Path: "/x/{a}/b", ID: "cross-1", Do: do},
		{Method: "GET", Path: "/x/b/{a}", ID: "cross-2", Do: do},
	}, &admin.Options{
		Tokens: []admin.Token{{Name: "short", Secret: "short-secret"}, {Secret: operatorSecret}, {Name: "again", Secret: operatorSecret}, {Name: "loopback", Secret: viewerSecret}, {Name: "spaced", Secret: "a secret with some spaces", Role: 9}},
		Checks: []admin.Check{{Name: "db"}, {Name: "db", Ready: func(context.Context) error { return nil }}, {Name: "a b"}}, MaxBody: -1, Timeout: -1,
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{
		"same-path (GET /a/{y}) overlaps", "one (GET /b) has the ID of GET /a/{x}", "has a method that is none", "nothing (GET /d) needs either",
		"both (GET /e) needs either", "viewer-write (POST /f) changes state", "get-body (GET /g) is a GET", "no-struct (POST /h) has a Body that is a string",
		"needs a path that begins with /", `tail (GET /j/{x...}) has the path segment "{x...}"`, `slash (GET /k/) has the path segment ""`, "(GET /l) needs an ID",
		"names {x} twice", "role (GET /n) needs the role", "path parameter p", `in "body"`, `type "float"`, "describes dry_run", `named "s t"`, "parameter u twice",
		"taken (GET /livez) overlaps", "cross-2 (GET /x/b/{a}) overlaps",
		"Tokens[0].Secret is shorter than 16", "Tokens[1].Name", "Tokens[2].Secret is the one of Tokens[1]", "Tokens[3].Name", "Tokens[4].Secret holds spaces", "Tokens[4].Role",
		"Checks[0] (db) has no Ready", `Checks[1].Name "db" is taken`, "Checks[2].Name", "Options.MaxBody", "Options.Timeout",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q", part)
		}
	}
	for _, secret := range []string{"short-secret", operatorSecret, "a secret with"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error tells the secret %q", secret)
		}
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if !strings.HasPrefix(line, "admin: ") {
			t.Errorf("line %q does not name the package", line)
		}
	}
}

func TestErrorsBecomeProblems(t *testing.T) {
	secret := errors.New("dial postgres://app:hunter2@db")
	var none *admin.Problem
	for name, test := range map[string]struct {
		err    error
		status int
	}{
		"unknown":  {secret, 500},
		"invalid":  {admin.Invalid("table", "no such table %q", "x"), 400},
		"missing":  {admin.NotFound("no such queue"), 404},
		"conflict": {admin.Conflict("not the owner"), 409},
		"down":     {admin.Unavailable(secret, "the database does not answer"), 503},
		"cannot":   {admin.Unsupported("needs pg_stat_statements"), 501},
		"deadline": {context.DeadlineExceeded, 504},
		"cancel":   {context.Canceled, 503},
		"typed":    {none, 500},
		"odd":      {&admin.Problem{Status: 200, Detail: "fine"}, 500},
		"bare":     {&admin.Problem{Status: 422, Detail: "not like this"}, 422},
	} {
		t.Run(name, func(t *testing.T) {
			h := mount(t, nil, admin.Operation{Method: "GET", Path: "/x", ID: "x", Do: func(context.Context, *admin.Call) (any, error) { return nil, test.err }})
			w := serve(h, request("GET", "/x", ""))
			wantProblem(t, w, test.status)
			if strings.Contains(w.Body.String(), "hunter2") {
				t.Fatalf("the client sees the cause: %s", w.Body)
			}
			if test.status == 503 && name == "down" && w.Header().Get("Retry-After") != "1" {
				t.Fatal("no Retry-After")
			}
		})
	}
}
