package metrics

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// A histogram shows its +Inf bucket only when that has an exemplar.
func TestExemplarsDoNotShiftTheCounts(t *testing.T) {
	reg := prometheus.NewRegistry()
	durations, err := NewHistogram(reg, HTTPRequestDuration)
	if err != nil {
		t.Fatal(err)
	}
	collector := newCollector(KeyMetrics().Rows)
	gather := func() points {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return collector.collect(families)
	}
	gather()
	ObserveTraced(durations.WithLabelValues("/", "GET", "2xx"), 60, "a trace")
	counts := gather()["api_latency_p95"][""]
	for i, n := range counts {
		if want := float64(i / len(httpBuckets)); n != want {
			t.Errorf("bucket %d counts %v, want %v: %v", i, n, want, counts)
		}
	}
	if len(counts) != len(httpBuckets)+1 {
		t.Errorf("%d counts", len(counts))
	}
}
