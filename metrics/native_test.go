package metrics

import (
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	dto "github.com/prometheus/client_model/go"
)

// histogram is what a Prometheus that takes native histograms is sent.
func scrapedHistogram(t *testing.T, reg *prometheus.Registry, name string) *dto.Histogram {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	w := httptest.NewRecorder()
	Handler(reg).ServeHTTP(w, r)
	decoder := expfmt.NewDecoder(w.Body, expfmt.ResponseFormat(w.Header()))
	for {
		var f dto.MetricFamily
		if err := decoder.Decode(&f); err != nil {
			t.Fatalf("%s was not scraped: %v", name, err)
		}
		if f.GetName() == name {
			return f.GetMetric()[0].GetHistogram()
		}
	}
}

// Native histograms come beside the classic ones, of which everything here is made, and their size is bounded whatever is
// observed.
func TestNativeHistograms(t *testing.T) {
	for _, native := range []bool{false, true} {
		reg, table := prometheus.NewRegistry(), KeyMetrics()
		table.Native = native
		h := must(NewHistogram(table.Registerer(reg), JobDuration)).WithLabelValues("q", "t", "done")
		for i := range 20_000 {
			h.Observe(math.Pow(10, float64(i%1200)/100-6)) // twelve decades
		}
		got := scrapedHistogram(t, reg, JobDuration.Name)
		if len(got.GetBucket()) < len(JobDuration.Buckets) {
			t.Errorf("native %v: %d classic buckets", native, len(got.GetBucket()))
		}
		buckets := len(got.GetPositiveDelta())
		if (buckets > 0) != native || buckets > 160 {
			t.Errorf("native %v: %d native buckets", native, buckets)
		}
		text := httptest.NewRecorder()
		Handler(reg).ServeHTTP(text, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if !strings.Contains(text.Body.String(), `job_duration_seconds_bucket{outcome="done",queue="q",type="t",le="30"}`) {
			t.Errorf("native %v: the text has no classic buckets: %.300s", native, text.Body.String())
		}
	}
}
