package deploytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"slices"
	"strings"
	"testing"
)

// TestTopology uses the platform as its users do, through the load balancer, and then loses an instance.
func TestTopology(t *testing.T) {
	s := open(t)
	front := "http://" + s.addr("nginx:8080")
	jar, err := cookiejar.New(nil)
	must(t, err)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Jar: jar, Transport: transport}
	// The same client at each instance itself: cookies are for a host, whatever the port.
	direct := []string{"http://" + s.addr("api-1:3000"), "http://" + s.addr("api-2:3000")}

	var created lead
	t.Run("log in and create", func(t *testing.T) {
		call(t, client, "POST", front+"/login", `{"user":"jo"}`, http.StatusOK, nil)
		res := call(t, client, "POST", front+"/api/v1/leads", `{"name":"A","email":"a@example.com","product":"car"}`, http.StatusCreated, &created)
		if len(res.header.Get("X-Request-Id")) != 32 {
			t.Errorf("the request has no id: %v", res.header)
		}
		for _, base := range append(direct, front) {
			var got lead
			if call(t, client, "GET", base+"/api/v1/leads/"+created.ID, "", http.StatusOK, &got); got.ID != created.ID {
				t.Errorf("%s reads %+v", base, got)
			}
		}
	})
	t.Run("scored by the worker", func(t *testing.T) {
		await(t, "a score", s.processes["worker"], func(ctx context.Context) error {
			var got lead
			res, err := getContext(ctx, client, front+"/api/v1/leads/"+created.ID)
			if err == nil {
				err = json.Unmarshal(res.body, &got)
			}
			if err == nil && got.Score == nil {
				err = errors.New("none")
			}
			return err
		})
	})
	t.Run("spread", func(t *testing.T) {
		seen := map[string]int{}
		for range 10 {
			seen[instance(t, client, front)]++
		}
		if !slices.Equal(slices.Sorted(maps.Keys(seen)), []string{"api-1", "api-2"}) {
			t.Errorf("ten requests went to %v", seen)
		}
	})
	t.Run("management is not proxied", func(t *testing.T) {
		for _, path := range []string{"/metrics", "/livez", "/readyz", "/health", "/openapi.json", "/api/v1/admin/read-only-mode", "/api/v1/performance/capacity/dashboard"} {
			if got := status(t, front+path); got != http.StatusNotFound {
				t.Errorf("%s through the balancer: %d", path, got)
			}
		}
	})
	t.Run("watched", func(t *testing.T) { watched(t, s) })
	t.Run("an instance is killed", func(t *testing.T) {
		s.processes["api-1"].Kill()
		for range 200 {
			if got := instance(t, client, front); got != "api-2" {
				t.Fatalf("%s answers", got)
			}
		}
		call(t, client, "POST", front+"/api/v1/leads", `{"name":"B","email":"b@example.com","product":"car"}`, http.StatusCreated, nil)
	})
	t.Run("and comes back", func(t *testing.T) {
		s.startAPI(t, 1)
		s.healthy(t, "api-1")
		await(t, "api-1 in rotation", s.processes["api-1"], func(ctx context.Context) error {
			if got := instance(t, client, front); got != "api-1" {
				return errors.New(got)
			}
			return nil
		})
	})
}

// watched sees that Prometheus scrapes all, has our series from each, and evaluates the rules.
func watched(t *testing.T, s *stage) {
	want := []string{s.addr("api-1:3002"), s.addr("api-2:3002"), s.addr("worker:3002")}
	slices.Sort(want)
	for _, promql := range []string{`up{job=~"leadapi|leadworker"}==1`, "scaleaware_sampler_last_success_timestamp_seconds>0"} {
		await(t, promql, s.processes["prometheus"], func(ctx context.Context) error {
			found, err := s.query(t, ctx, strings.ReplaceAll(promql, "+", "%2B"))
			if err == nil && len(found) < len(want) {
				err = fmt.Errorf("from %v, want %v", slices.Sorted(maps.Keys(found)), want)
			}
			return err
		})
	}
	res := get(t, http.DefaultClient, "http://"+s.addr("prometheus:9090")+"/api/v1/rules")
	var reply struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	must(t, json.Unmarshal(res.body, &reply))
	rules := 0
	for _, group := range reply.Data.Groups {
		for _, rule := range group.Rules {
			rules++
			if rule.Health == "err" {
				t.Errorf("%s: %s", rule.Name, rule.LastError)
			}
		}
	}
	if rules < 40 {
		t.Errorf("%d rules are loaded", rules)
	}
}

type lead struct {
	ID    string `json:"id"`
	Score *int   `json:"score"`
}

// instance is the one that answers through a base address, which must answer.
func instance(t *testing.T, client *http.Client, base string) string {
	t.Helper()
	var reply struct{ Instance string }
	call(t, client, "GET", base+"/api/health", "", http.StatusOK, &reply)
	return reply.Instance
}

type response struct {
	status int
	header http.Header
	body   []byte
}

func call(t *testing.T, client *http.Client, method, url, body string, want int, into any) response {
	t.Helper()
	res, err := do(t.Context(), client, method, url, body)
	if err != nil || res.status != want {
		t.Fatalf("%s %s: %d %s, %v, want %d", method, url, res.status, res.body, err, want)
	}
	if into != nil {
		must(t, json.Unmarshal(res.body, into))
	}
	return res
}

func get(t *testing.T, client *http.Client, url string) response {
	t.Helper()
	res, err := getContext(t.Context(), client, url)
	must(t, err)
	return res
}

func getContext(ctx context.Context, client *http.Client, url string) (response, error) {
	return do(ctx, client, http.MethodGet, url, "")
}

func do(ctx context.Context, client *http.Client, method, url, body string) (response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	return response{res.StatusCode, res.Header, content}, err
}
