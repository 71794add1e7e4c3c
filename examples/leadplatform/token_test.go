package main_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// public needs no token: it says whether the platform is up, and not how it is doing, and the console's page asks for the token itself.
var public = map[string]bool{
	"/livez": true, "/readyz": true, "/health": true, "/": true, "/console.css": true, "/console.js": true, "/icon.svg": true,
	"/uplot.css": true, "/uplot.js": true, "/uplot.license": true,
}

// strangersGetNothing tries every operation that the platform's /openapi.json lists without the token and with what is nearly the
// token, and in earnest, not as a dry run. All are refused in the same words, and nothing has changed after.
func strangersGetNothing(t *testing.T, p *platform, token string) {
	s := p.state(t)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 15 * time.Second}
	ask := func(method, path, body, query string, authorization ...string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.Admin+path+query, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header["Authorization"] = authorization
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer resp.Body.Close()
		reply, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(reply)
	}
	known := func(path string) string {
		t.Helper()
		status, reply := ask("GET", path, "", "", "Bearer "+token)
		if status != http.StatusOK {
			t.Fatalf("GET %s with the token: %d %.200s", path, status, reply)
		}
		return reply
	}
	var contract struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(known("/openapi.json")), &contract); err != nil {
		t.Fatal(err)
	}
	type condition struct {
		epoch  float64
		paused [3]bool
		tables string
	}
	now := func() (c condition) {
		var mode struct{ Epoch float64 }
		if err := json.Unmarshal([]byte(known("/api/v1/admin/read-only-mode")), &mode); err != nil {
			t.Fatal(err)
		}
		c.epoch = mode.Epoch
		for i, name := range []string{"critical", "normal", "low-priority"} {
			var queue struct{ Paused bool }
			if err := json.Unmarshal([]byte(known("/api/v1/performance/jobs/"+name)), &queue); err != nil {
				t.Fatal(err)
			}
			c.paused[i] = queue.Paused
		}
		c.tables = query(t, s.Primary, `SELECT count(*) || ' ' || sum(vacuum_count) FROM pg_stat_user_tables`)
		return c
	}
	before := now()
	fill := strings.NewReplacer("{table}", "Event", "{queue}", "normal", "{id}", "1")
	bodies := map[string]string{"/api/v1/performance/database/pool": `{"max":7}`, "/api/v1/performance/cache/invalidate": `{"pattern":"*"}`}
	type try struct {
		query         string
		authorization []string
	}
	tries := map[string]try{
		"no token":        {},
		"a wrong token":   {"", []string{"Bearer " + strings.Repeat("x", len(token))}},
		"all but its end": {"", []string{"Bearer " + token[:len(token)-1]}},
		"it twice":        {"", []string{"Bearer " + token + token}},
		"in the query":    {"?token=" + token + "&access_token=" + token, nil},
	}
	routes, refusals := 0, map[string]string{}
	for path, methods := range contract.Paths {
		for method := range methods {
			if public[path] {
				continue
			}
			routes++
			method = strings.ToUpper(method)
			for name, try := range tries {
				status, reply := ask(method, fill.Replace(path), bodies[path], try.query, try.authorization...)
				for status == http.StatusTooManyRequests { // strangers together may make 20 writes a second
					time.Sleep(50 * time.Millisecond)
					status, reply = ask(method, fill.Replace(path), bodies[path], try.query, try.authorization...)
				}
				if refusals[name] == "" {
					refusals[name] = reply
				}
				if status != http.StatusUnauthorized || reply != refusals[name] {
					t.Errorf("%s %s with %s: %d %.300s, want a 401 that says the same of all: %s", method, path, name, status, reply, refusals[name])
				}
			}
		}
	}
	if routes < 30 {
		t.Errorf("only %d operations need the token", routes)
	}
	for name, refusal := range refusals {
		if len(refusal) > 400 || strings.Contains(refusal, token[:14]) {
			t.Errorf("the refusal of %s tells %s", name, refusal)
		}
	}
	if after := now(); after != before {
		t.Errorf("strangers changed %+v to %+v", before, after)
	}
	var audit struct {
		Records []struct {
			Method, Path string
			Status       int
		}
	}
	if err := json.Unmarshal([]byte(known("/api/v1/admin/audit?limit=1000")), &audit); err != nil {
		t.Fatal(err)
	}
	for _, r := range audit.Records {
		if r.Status != http.StatusUnauthorized && r.Status != http.StatusTooManyRequests {
			t.Errorf("%s %s was done: %d", r.Method, r.Path, r.Status)
		}
	}
	if len(audit.Records) == 0 {
		t.Error("no refused write is in the audit")
	}
}
