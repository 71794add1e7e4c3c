package otelmetrics_test

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	otlp "go.opentelemetry.io/proto/otlp/metrics/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/metrics/otelmetrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const trace = "4bf92f3577b34da6a3ce929d0e0e4736"

// measured is a registry with some of each kind.
func measured(t *testing.T) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewRegistry()
	durations, err := metrics.NewHistogram(reg, metrics.HTTPRequestDuration)
	if err != nil {
		t.Fatal(err)
	}
	metrics.ObserveTraced(durations.WithLabelValues("/leads/{id}", "GET", "2xx"), .25, trace)
	metrics.ObserveTraced(durations.WithLabelValues("/leads/{id}", "GET", "2xx"), 60, "no id") // in the +Inf bucket
	reads, err := metrics.NewCounter(reg, metrics.CacheRequests)
	if err != nil {
		t.Fatal(err)
	}
	reads.WithLabelValues("lead", "miss").Add(3)
	used, err := metrics.NewGauge(reg, metrics.CacheMemoryUsed)
	if err != nil {
		t.Fatal(err)
	}
	used.WithLabelValues("10.0.0.1:6379").Set(1 << 20)
	wait, err := metrics.NewCounter(reg, metrics.DBPoolAcquireWait)
	if err != nil {
		t.Fatal(err)
	}
	wait.WithLabelValues("db", "primary").Add(.5)
	return reg
}

func TestProducer(t *testing.T) {
	reader := metric.NewManualReader(metric.WithProducer(otelmetrics.NewProducer(measured(t))))
	provider := metric.NewMeterProvider(metric.WithReader(reader))
	defer func() { _ = provider.Shutdown(context.Background()) }()
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.ScopeMetrics) != 1 {
		t.Fatalf("%d scopes", len(got.ScopeMetrics))
	}
	units := map[string]string{}
	for _, m := range got.ScopeMetrics[0].Metrics {
		units[m.Name] = m.Unit
		switch data := m.Data.(type) {
		case metricdata.Histogram[float64]:
			p := data.DataPoints[0]
			if m.Name != metrics.HTTPRequestDuration.Name || m.Description != metrics.HTTPRequestDuration.Help {
				t.Errorf("histogram %q: %q", m.Name, m.Description)
			}
			if !slices.Equal(p.Bounds, metrics.HTTPRequestDuration.Buckets) || p.Count != 2 || p.Sum != 60.25 || p.BucketCounts[8] != 1 || p.BucketCounts[len(p.Bounds)] != 1 {
				t.Errorf("bounds %v, counts %v, %d, %v", p.Bounds, p.BucketCounts, p.Count, p.Sum)
			}
			if data.Temporality != metricdata.CumulativeTemporality {
				t.Error("not cumulative")
			}
			for _, label := range metrics.HTTPRequestDuration.Labels {
				if v, ok := p.Attributes.Value(attribute.Key(label)); !ok || v.AsString() == "" {
					t.Errorf("no label %s", label)
				}
			}
			if len(p.Exemplars) != 2 || hex.EncodeToString(p.Exemplars[0].TraceID) != trace || string(p.Exemplars[1].TraceID) != "no id" {
				t.Errorf("exemplars %+v", p.Exemplars)
			}
		case metricdata.Sum[float64]:
			if want := map[string]float64{metrics.CacheRequests.Name: 3, metrics.DBPoolAcquireWait.Name: .5}[m.Name]; data.DataPoints[0].Value != want || !data.IsMonotonic {
				t.Errorf("%s is %v", m.Name, data.DataPoints[0].Value)
			}
		case metricdata.Gauge[float64]:
			if m.Name != metrics.CacheMemoryUsed.Name || data.DataPoints[0].Value != 1<<20 {
				t.Errorf("%s is %v", m.Name, data.DataPoints[0].Value)
			}
		default:
			t.Errorf("%s is a %T", m.Name, data)
		}
	}
	for s, want := range map[*metrics.Series]string{&metrics.HTTPRequestDuration: "s", &metrics.CacheRequests: "", &metrics.CacheMemoryUsed: "By", &metrics.DBPoolAcquireWait: "s"} {
		if unit, ok := units[s.Name]; !ok || unit != want {
			t.Errorf("%s has unit %q (%v), want %q", s.Name, unit, ok, want)
		}
	}
}

func TestOverHTTP(t *testing.T) {
	received := make(chan *collector.ExportMetricsServiceRequest, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			var err error
			if body, err = gzip.NewReader(r.Body); err != nil {
				t.Error(err)
				return
			}
		}
		blob, err := io.ReadAll(body)
		request := new(collector.ExportMetricsServiceRequest)
		if err == nil {
			err = proto.Unmarshal(blob, request)
		}
		if err != nil {
			t.Error(err)
		}
		received <- request
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer server.Close()
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	exporter, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(server.URL+"/v1/metrics"), otlpmetrichttp.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		t.Fatal(err)
	}
	provider := metric.NewMeterProvider(metric.WithReader(metric.NewPeriodicReader(exporter, metric.WithProducer(otelmetrics.NewProducer(measured(t))))))
	defer func() { _ = provider.Shutdown(context.Background()) }()
	if err := provider.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var durations *otlp.HistogramDataPoint
	for _, m := range (<-received).GetResourceMetrics()[0].GetScopeMetrics()[0].GetMetrics() {
		if m.GetName() == metrics.HTTPRequestDuration.Name && m.GetUnit() == "s" {
			durations = m.GetHistogram().GetDataPoints()[0]
		}
	}
	if !slices.Equal(durations.GetExplicitBounds(), metrics.HTTPRequestDuration.Buckets) || durations.GetCount() != 2 {
		t.Errorf("received %v", durations)
	}
	if traces := durations.GetExemplars(); len(traces) == 0 || hex.EncodeToString(traces[0].GetTraceId()) != trace {
		t.Errorf("exemplars %v", traces)
	}
}
