package metrics

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/admin"
)

// serve mounts c's operations as a service does.
func serve(t *testing.T, c *Capacity) func(path string) (int, string) {
	t.Helper()
	handler, err := admin.New(c.Operations(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return func(path string) (int, string) {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.RemoteAddr, r.Host = "127.0.0.1:9", "127.0.0.1"
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
}

func TestOperationsCheckTheirQueries(t *testing.T) {
	get := serve(t, must(NewCapacity(prometheus.NewRegistry(), nil)))
	const base = "/api/v1/performance/capacity/"
	for query, want := range map[string]string{
		"dashboard":                                                "",
		"dashboard?scope=instance":                                 "",
		"dashboard?scope=fleet":                                    "",
		"dashboard?scope=Fleet":                                    "scope has to be instance or fleet",
		"dashboard?scope=fleet&scope=fleet":                        "give it once",
		"dashboard?reach=fleet":                                    "it takes scope",
		"bottlenecks?scope=instance":                               "",
		"bottlenecks?scope=all":                                    "scope has to be instance or fleet",
		"history":                                                  "",
		"history?metric=queue_depth,job_time":                      "",
		"history?metric=queue_depth,":                              "no key metric",
		"history?metric=api_latency":                               "no key metric",
		"history?since=10m":                                        "",
		"history?since=-10m":                                       "since has to be",
		"history?since=yesterday":                                  "since has to be",
		"history?since=2026-01-01T00:00:00Z":                       "",
		"history?since=2026-01-01T01:00:00%2B01:00&scope=instance": "",
		"history?since=" + strings.Repeat("9", 2000):               "longer than",
	} {
		status, body := get(base + query)
		if want == "" && status != http.StatusOK || want != "" && (status != http.StatusBadRequest || !strings.Contains(body, want)) {
			t.Errorf("%s: %d %.200s, want %q", query, status, body, want)
		}
	}
}

func TestOperationsHaveTypedReplies(t *testing.T) {
	_, body := serve(t, must(NewCapacity(prometheus.NewRegistry(), nil)))("/openapi.json")
	for _, want := range []string{`"metrics.Report"`, `"metrics.Bottlenecks"`, `"metrics.History"`, `"metrics.HistorySeries"`, `"step_seconds"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the contract has no %s", want)
		}
	}
}

func FuzzParseSince(f *testing.F) {
	for _, seed := range []string{"", "10m", "-1s", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2540400h", "0001-01-01T00:00:00Z"} {
		f.Add(seed)
	}
	c := must(NewCapacity(prometheus.NewRegistry(), nil))
	c.judges[instanceReach].history.add(epoch, map[string]map[string]float64{"queue_depth": {"mail": 3}})
	f.Fuzz(func(t *testing.T, text string) {
		since, err := parseSince(text, epoch.Add(time.Minute))
		if err != nil {
			return
		}
		h := c.past(instanceReach, since, nil)
		if n := len(h.Series[0].Values); n > 1 {
			t.Errorf("since %q there are %d values, and there is but one", text, n)
		}
		if _, err := json.Marshal(h); err != nil {
			t.Error(err)
		}
	})
}
