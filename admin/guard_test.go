package admin_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/admin"
)

// served lists method and path of everything in the document, wildcards filled.
func served(t *testing.T, h http.Handler, change ...func(*http.Request)) map[[2]string]map[string]any {
	t.Helper()
	w := serve(h, request("GET", "/openapi.json", "", change...))
	if w.Code != 200 {
		t.Fatalf("/openapi.json: %d %s", w.Code, w.Body)
	}
	doc := decode[struct {
		Paths map[string]map[string]map[string]any `json:"paths"`
	}](t, w)
	all := map[[2]string]map[string]any{}
	for path, item := range doc.Paths {
		for method, op := range item {
			all[[2]string{strings.ToUpper(method), strings.NewReplacer("{", "", "}", "").Replace(path)}] = op
		}
	}
	return all
}

// Whatever is mounted is refused to strangers, and writes to viewers; a new route cannot be forgotten.
func TestEveryRouteAsksForTheToken(t *testing.T) {
	opts := &admin.Options{Tokens: tokens(), Metrics: http.NotFoundHandler(), WriteRate: 1e6}
	h := mount(t, opts, sample()...)
	public := map[string]bool{"/": true, "/console.css": true, "/console.js": true, "/uplot.css": true, "/uplot.js": true, "/uplot.license": true, "/icon.svg": true, "/livez": true, "/readyz": true, "/health": true}
	routes := served(t, h, bearing(viewerSecret))
	if len(routes) < 12 {
		t.Fatalf("only %d routes are described", len(routes))
	}
	for route := range routes {
		method, path := route[0], route[1]
		for name, change := range map[string]func(*http.Request){
			"none": func(*http.Request) {}, "wrong": bearing("wrong-secret-0123456789"), "empty": header("Authorization", "Bearer "), "no scheme": header("Authorization", operatorSecret),
			"basic": func(r *http.Request) { r.SetBasicAuth("ops", operatorSecret) }, "in the query": func(r *http.Request) { r.URL.RawQuery = "token=" + operatorSecret },
			"prefix": bearing(operatorSecret[:20]), "longer": bearing(operatorSecret + "x"),
			"two headers": func(r *http.Request) {
				r.Header["Authorization"] = []string{"Bearer " + operatorSecret, "Bearer " + operatorSecret}
			},
		} {
			w := serve(h, request(method, path, "", change))
			if public[path] {
				if w.Code != 200 {
					t.Errorf("%s %s with %s token: %d", method, path, name, w.Code)
				}
				continue
			}
			wantProblem(t, w, 401, "Authorization: Bearer")
			if w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s: no WWW-Authenticate", method, path)
			}
		}
		if method != "GET" {
			wantProblem(t, serve(h, request(method, path, "", bearing(viewerSecret))), 403, "operator")
		}
		if w := serve(h, request(method, path, "", bearing(operatorSecret))); w.Code == 401 || w.Code == 403 {
			t.Errorf("%s %s refuses the operator: %d", method, path, w.Code)
		}
		if w := serve(h, request(method, path, "", header("authorization", "bearer "+operatorSecret))); w.Code == 401 {
			t.Errorf("%s %s wants the scheme in capitals", method, path)
		}
	}
}

func TestOperatorMayKeepAReadToItself(t *testing.T) {
	ops := sample()
	ops[0].Role = admin.Operator
	h := mount(t, &admin.Options{Tokens: tokens()}, ops...)
	wantProblem(t, serve(h, request("GET", "/api/v1/things/x", "", bearing(viewerSecret))), 403)
	if w := serve(h, request("GET", "/api/v1/things/x", "", bearing(operatorSecret))); w.Code != 200 {
		t.Fatal(w.Code)
	}
}

func TestTokensRotate(t *testing.T) {
	next := "operator-secret-next-0123456789"
	h := mount(t, &admin.Options{Tokens: append(tokens(), admin.Token{Name: "ops", Role: admin.Operator, Secret: next})}, sample()...)
	for _, secret := range []string{operatorSecret, next} {
		w := serve(h, request("POST", "/api/v1/things/x/pause", "", bearing(secret)))
		if w.Code != 200 || !strings.Contains(w.Body.String(), `"actor":"ops"`) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
}

func TestAuthorizer(t *testing.T) {
	opts := &admin.Options{AllowInsecureLoopback: true, Tokens: tokens(), Authorizer: func(r *http.Request) (admin.Identity, bool) {
		switch r.Header.Get("X-Client-Cert") {
		case "anna":
			return admin.Identity{Name: "anna", Role: admin.Operator}, true
		case "strange":
			return admin.Identity{Name: "strange", Role: 9}, true
		case "loopback": // the name alone borrows no trust
			return admin.Identity{Name: "loopback"}, true
		}
		return admin.Identity{}, false
	}}
	h := mount(t, opts, sample()...)
	pause := func(change ...func(*http.Request)) *httptest.ResponseRecorder {
		return serve(h, request("POST", "/api/v1/things/x/pause", "", change...))
	}
	if w := pause(header("X-Client-Cert", "anna")); w.Code != 200 || !strings.Contains(w.Body.String(), "anna") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := pause(bearing(operatorSecret)); w.Code != 200 {
		t.Fatal(w.Code)
	}
	wantProblem(t, pause(), 401) // AllowInsecureLoopback has no effect beside tokens
	wantProblem(t, pause(header("X-Client-Cert", "strange")), 403)
	wantProblem(t, pause(header("X-Client-Cert", "loopback")), 403, "viewer")
}

// Without tokens, only this machine is served, by a name that no other site can borrow, and not through a proxy.
func TestLoopbackTrust(t *testing.T) {
	type change = func(*http.Request)
	host := func(h string) change { return func(r *http.Request) { r.Host = h } }
	peer := func(a string) change { return func(r *http.Request) { r.RemoteAddr = a } }
	reads, open := mount(t, nil, sample()...), mount(t, &admin.Options{AllowInsecureLoopback: true, WriteRate: 1e6}, sample()...)
	for name, test := range map[string]struct {
		change change
		ok     bool
	}{
		"localhost":            {host("localhost:3002"), true},
		"localhost, no port":   {host("localhost"), true},
		"LOCALHOST.":           {host("LOCALHOST.:3002"), true},
		"127.0.0.1":            {host("127.0.0.1:3002"), true},
		"127.8.8.8":            {host("127.8.8.8"), true},
		"[::1]":                {func(r *http.Request) { r.Host, r.RemoteAddr = "[::1]:3002", "[::1]:5000" }, true},
		"[::1], no port":       {host("[::1]"), true},
		"mapped peer":          {peer("[::ffff:127.0.0.1]:5000"), true},
		"other peer":           {peer("10.0.0.7:5000"), false},
		"other mapped peer":    {peer("[::ffff:10.0.0.7]:5000"), false},
		"no peer":              {peer(""), false},
		"unix peer":            {peer("@"), false},
		"rebound name":         {host("evil.example:3002"), false},
		"name that ends so":    {host("localhost.evil.example"), false},
		"name that begins so":  {host("127.0.0.1.evil.example:3002"), false},
		"user part":            {host("localhost@evil.example"), false},
		"no host":              {host(""), false},
		"other address":        {host("10.0.0.7:3002"), false},
		"unspecified":          {host("0.0.0.0:3002"), false},
		"X-Forwarded-For":      {header("X-Forwarded-For", "203.0.113.9"), false},
		"X-Forwarded-For same": {header("X-Forwarded-For", "127.0.0.1"), false},
		"X-Forwarded-For nil":  {header("X-Forwarded-For", ""), false},
		"Forwarded":            {header("Forwarded", "for=203.0.113.9"), false},
		"X-Real-IP":            {header("X-Real-IP", "203.0.113.9"), false},
		"X-Forwarded-Host":     {header("X-Forwarded-Host", "localhost"), false},
		"Via":                  {header("Via", "1.1 proxy"), false},
		"wrong bearer":         {bearing("nobody-asked-for-a-token"), true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, h := range []http.Handler{reads, open} {
				w := serve(h, request("GET", "/api/v1/things/x", "", test.change))
				if test.ok && w.Code != 200 {
					t.Fatalf("read: %d %s", w.Code, w.Body)
				} else if !test.ok {
					wantProblem(t, w, 403, "Options.Tokens")
				}
				if w := serve(h, request("GET", "/livez", "", test.change)); w.Code != 200 {
					t.Fatalf("/livez: %d", w.Code)
				}
			}
			wantProblem(t, serve(reads, request("POST", "/api/v1/things/x/pause", "", test.change)), 403, "no token is configured")
			w := serve(open, request("POST", "/api/v1/things/x/pause", "", test.change))
			if test.ok && w.Code != 200 {
				t.Fatalf("write: %d %s", w.Code, w.Body)
			} else if !test.ok {
				wantProblem(t, w, 403)
			}
		})
	}
}

// A page of another site cannot make a browser write, whatever credentials the browser adds.
func TestCrossOriginWrites(t *testing.T) {
	for name, opts := range map[string]*admin.Options{"loopback": {AllowInsecureLoopback: true}, "token": {Tokens: tokens()}} {
		h := mount(t, opts, sample()...)
		for _, test := range []struct {
			site, origin string
			status       int
		}{
			{"", "", 200}, // curl
			{"same-origin", "http://localhost:3002", 200},
			{"none", "", 200}, // typed by a person
			{"same-site", "http://app.localhost:3002", 403},
			{"cross-site", "https://evil.example", 403},
			{"cross-site", "", 403},
			{"", "https://evil.example", 403}, // browsers without Sec-Fetch-Site
			{"", "null", 403},
			{"", "http://localhost:3000", 403},
			{"", "http://localhost:3002", 200},
		} {
			for _, target := range []string{"POST /api/v1/things/x/pause", "DELETE /api/v1/things/x"} {
				method, path, _ := strings.Cut(target, " ")
				r := request(method, path, "", bearing(operatorSecret))
				if test.site != "" {
					r.Header.Set("Sec-Fetch-Site", test.site)
				}
				if test.origin != "" {
					r.Header.Set("Origin", test.origin)
				}
				w := serve(h, r)
				if test.status == 200 && w.Code != 200 {
					t.Errorf("%s: %s from %q %q: %d %s", name, target, test.site, test.origin, w.Code, w.Body)
				} else if test.status != 200 {
					wantProblem(t, w, test.status, "another site")
				}
			}
		}
		if w := serve(h, request("GET", "/api/v1/things/x", "", bearing(operatorSecret), header("Sec-Fetch-Site", "cross-site"))); w.Code != 200 || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: a read is safe and not shared: %d", name, w.Code)
		}
	}
}

func TestTokenKeepsItsSecret(t *testing.T) {
	token := tokens()[0]
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "token", token, "pointer", &token)
	encoded, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(token), fmt.Sprintf("%+v %#v %s %q", token, token, token, token), fmt.Sprintf("%v", []admin.Token{token}), logged.String(), string(encoded)} {
		if strings.Contains(text, operatorSecret) {
			t.Errorf("%s tells the secret", text)
		}
	}
}
