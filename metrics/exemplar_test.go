package metrics_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/scaleaware/scaleaware/metrics"
)

type traceKey struct{}

func traceOf(ctx context.Context) string {
	id, _ := ctx.Value(traceKey{}).(string)
	return id
}

func TestHTTPExemplar(t *testing.T) {
	h, reg := newHTTP(t, &metrics.HTTPOptions{Trace: traceOf})
	mux := http.NewServeMux()
	mux.HandleFunc("/leads/{id}", ok)
	handler := h.Middleware(mux)
	for _, trace := range []string{"4bf92f3577b34da6a3ce929d0e0e4736", "", "\xff", strings.Repeat("x", 200)} {
		r := httptest.NewRequest("GET", "/leads/7", nil)
		handler.ServeHTTP(httptest.NewRecorder(), r.WithContext(context.WithValue(r.Context(), traceKey{}, trace)))
	}
	if diff := cmp.Diff([]string{"/leads/{id} GET 2xx ×4"}, served(t, reg)); diff != "" {
		t.Error(diff)
	}
	for accept, want := range map[string]int{"application/openmetrics-text": 1, "text/plain": 0} {
		r := httptest.NewRequest("GET", "/metrics", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		metrics.Handler(reg).ServeHTTP(w, r)
		if n := bytes.Count(w.Body.Bytes(), []byte(`# {trace_id="`)); n != want {
			t.Errorf("%s: %d exemplars, want %d:\n%s", accept, n, want, w.Body)
		}
	}
}

func metric(t *testing.T, id string) metrics.KeyMetric {
	t.Helper()
	for _, m := range metrics.KeyMetrics().Rows {
		if m.ID == id {
			return m
		}
	}
	t.Fatalf("no key metric %s", id)
	return metrics.KeyMetric{}
}

func TestLastExemplar(t *testing.T) {
	reg := prometheus.NewRegistry()
	durations, err := metrics.NewHistogram(reg, metrics.HTTPRequestDuration)
	if err != nil {
		t.Fatal(err)
	}
	last := func(id string) string {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		e, ok := metric(t, id).LastExemplar(families)
		if !ok {
			return "none"
		}
		return fmt.Sprint(e.Trace, " ", e.Labels["route"], " ", e.Value)
	}
	observe := func(route, code string, seconds float64, trace string) {
		metrics.ObserveTraced(durations.WithLabelValues(route, "GET", code), seconds, trace)
	}
	observe("/fast", "2xx", .2, "fast") // the threshold itself is still fine
	observe("/slow", "2xx", .25, "")
	for _, id := range []string{"api_latency_p95", "api_error_rate", "api_throughput", "queue_depth"} {
		if got := last(id); got != "none" {
			t.Errorf("%s: %s, and nothing traced was slow or failed", id, got)
		}
	}
	observe("/slow", "2xx", .25, "first")
	observe("/slower", "5xx", 60, "second") // in the +Inf bucket
	observe("/slow", "2xx", .3, "third")
	observe("/fast", "2xx", .01, "last")
	for id, want := range map[string]string{
		"api_latency_p95": "third /slow 0.3",
		"api_latency_p99": "second /slower 60",
		"api_error_rate":  "second /slower 60",
	} {
		if got := last(id); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
}
