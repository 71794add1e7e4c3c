package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

func TestProfilesPassAgainstThePlatform(t *testing.T) {
	at := platform.Get(t).place()
	for _, path := range []string{baseline, distributed} {
		t.Run(path, func(t *testing.T) {
			t.Parallel() // both users and the machine have time for two
			blob, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := run(t.Context(), &out, at, []string{"run", "-e", "short", written(t, patient(string(blob)))}); err != nil {
				t.Errorf("%v:\n%s", err, out.String())
			}
		})
	}
}

func TestSmokePassesAgainstThePlatform(t *testing.T) {
	at := platform.Get(t).place()
	var out bytes.Buffer
	if err := run(t.Context(), &out, at, []string{"smoke"}); err != nil {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

// Each fault stands between the smoke test and a platform that works.
func TestSmokeNamesWhatIsBroken(t *testing.T) {
	at := platform.Get(t).place()
	status := func(path string, status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path {
				w.WriteHeader(status)
			}
		}
	}
	body := func(method, path, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method == method && strings.HasPrefix(r.URL.Path, path) {
				_, _ = w.Write([]byte(body))
			}
		}
	}
	for name, fault := range map[string]http.HandlerFunc{
		"API answers":             body("GET", "/api/health", `{"status":"starting"}`),
		"process is healthy":      status("/health", 503),
		"process lives":           status("/livez", 500),
		"process is ready":        status("/readyz", 503),
		"writes are allowed":      body("GET", "/api/v1/admin/read-only-mode", `{"enabled":true}`),
		"a stranger cannot write": func(w http.ResponseWriter, r *http.Request) { createdForAnybody(w, r) },
		"log in":                  body("GET", "/api/v1/me", `{"user":"somebody else"}`),
		"read it back at once":    body("GET", "/api/v1/leads/", `{"id":"x","revision":1}`),
		"a worker scores it":      neverScored(t, at.Target),
		"log out":                 status("/logout", 503),
		"metrics are exported":    body("GET", "/metrics", "go_goroutines 1\n"),
		"dashboard has alerts":    body("GET", "/api/v1/performance/capacity/dashboard", `{}`),
		"contract is reachable":   body("GET", "/openapi.json", `{}`),
	} {
		t.Run(name, func(t *testing.T) {
			api, admin := front(t, at.Target, fault), front(t, at.Admin, fault)
			var out bytes.Buffer
			err := smokeWithin(t.Context(), &out, Place{Target: api, Admin: admin}, 300*time.Millisecond)
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v, want one that names %q:\n%s", err, name, out.String())
			}
		})
	}
}

// front passes requests on, unless the fault has written an answer.
func front(t *testing.T, target string, fault http.HandlerFunc) string {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tried := &tried{ResponseWriter: w}
		if fault(tried, r); !tried.written {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() { server.Close(); transport.CloseIdleConnections() })
	return server.URL
}

type tried struct {
	http.ResponseWriter
	written bool
}

func (t *tried) WriteHeader(status int) { t.written = true; t.ResponseWriter.WriteHeader(status) }
func (t *tried) Write(b []byte) (int, error) {
	t.written = true
	return t.ResponseWriter.Write(b)
}

func createdForAnybody(w http.ResponseWriter, r *http.Request) {
	if r.Method == "POST" && r.URL.Path == "/api/v1/leads" {
		w.WriteHeader(http.StatusCreated)
	}
}

// neverScored takes the score out of every lead.
func neverScored(t *testing.T, target string) http.HandlerFunc {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "GET" || !strings.HasPrefix(r.URL.Path, "/api/v1/leads/") {
			return
		}
		resp, err := http.Get(target + r.URL.Path)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		var body bytes.Buffer
		_, _ = body.ReadFrom(resp.Body)
		_, _ = w.Write(bytes.ReplaceAll(body.Bytes(), []byte(`"score"`), []byte(`"scored"`)))
	}
}
