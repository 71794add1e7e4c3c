package metrics_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/metrics"
)

// broken is a collector that fails.
type broken struct{ desc *prometheus.Desc }

func (b broken) Describe(ch chan<- *prometheus.Desc) { ch <- b.desc }
func (b broken) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(b.desc, context.Canceled)
}

func TestHandlerShowsWhatCanBeGathered(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(broken{prometheus.NewDesc("broken", "Fails.", nil, nil)})
	gauge, err := metrics.NewGauge(reg, metrics.ReadOnlyEnabled)
	if err != nil {
		t.Fatal(err)
	}
	gauge.WithLabelValues().Set(1)
	w := get(metrics.Handler(reg), "GET", "/metrics")
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), metrics.ReadOnlyEnabled.Name+" 1\n") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// The runbook pipes the dashboard through jq .alerts.
func TestOperations(t *testing.T) {
	capacity, err := metrics.NewCapacity(prometheus.NewRegistry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	handler := map[string]admin.Operation{}
	for _, op := range capacity.Operations() {
		handler[op.Method+" "+op.Path] = op
	}
	for path, field := range map[string]string{
		"/api/v1/performance/capacity/dashboard":   "alerts",
		"/api/v1/performance/capacity/bottlenecks": "resources",
	} {
		op, ok := handler["GET "+path]
		if !ok {
			t.Errorf("no operation at GET %s", path)
			continue
		}
		reply, err := op.Do(t.Context(), &admin.Call{Request: httptest.NewRequest("GET", path, nil)})
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(reply)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if _, ok := got[field].([]any); !ok {
			t.Errorf("GET %s: %s is %v, want an array", path, field, got[field])
		}
	}
}
