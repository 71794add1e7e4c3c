package metrics_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/scaleaware/scaleaware/metrics"
)

func ExampleKeyMetric_Level() {
	for _, m := range metrics.KeyMetrics().Rows {
		if m.ID == "cache_hit_rate" {
			fmt.Println(m.Level(.85), m.Level(.7), m.Level(.5))
		}
	}
	// Output: ok warning critical
}

func ExampleRules() {
	for _, line := range bytes.Split(metrics.Rules(), []byte("\n")) {
		if bytes.Contains(line, []byte("cache_hit")) {
			fmt.Println(string(bytes.TrimSpace(line)))
		}
	}
	// Output:
	// - record: scaleaware:cache_hit:ratio_rate5m
	// - record: cache_hit_rate
	// expr: 'scaleaware:cache_hit:ratio_rate5m'
	// expr: 'scaleaware:cache_hit:ratio_rate5m < 0.8'
	// metric: cache_hit_rate
	// expr: 'scaleaware:cache_hit:ratio_rate5m < 0.6'
	// metric: cache_hit_rate
}

func ExampleHTTP_Middleware() {
	registry := prometheus.NewRegistry()
	httpMetrics, err := metrics.NewHTTP(registry, nil)
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /leads/{id}", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no such lead", http.StatusNotFound)
	})
	handler := httpMetrics.Middleware(mux)
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/leads/7", nil))
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/leads/8", nil))

	families, _ := registry.Gather()
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if h := m.GetHistogram(); h != nil {
				fmt.Println(family.GetName(), m.GetLabel()[2].GetValue(), m.GetLabel()[0].GetValue(), h.GetSampleCount())
			}
		}
	}
	// Output: http_server_request_duration_seconds /leads/{id} 4xx 2
}
