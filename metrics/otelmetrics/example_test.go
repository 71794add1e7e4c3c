package otelmetrics_test

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/metrics/otelmetrics"
)

// A service gives the producer to a metric.PeriodicReader with an exporter.
func ExampleNewProducer() {
	registry := prometheus.NewRegistry()
	durations, err := metrics.NewHistogram(registry, metrics.HTTPRequestDuration)
	if err != nil {
		fmt.Println(err)
		return
	}
	durations.WithLabelValues("/leads/{id}", "GET", "2xx").Observe(.25)

	reader := metric.NewManualReader(metric.WithProducer(otelmetrics.NewProducer(registry)))
	provider := metric.NewMeterProvider(metric.WithReader(reader))
	defer provider.Shutdown(context.Background())
	var read metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &read); err != nil {
		fmt.Println(err)
		return
	}
	for _, scope := range read.ScopeMetrics {
		for _, m := range scope.Metrics {
			fmt.Println(m.Name, m.Unit)
		}
	}
	// Output: http_server_request_duration_seconds s
}
