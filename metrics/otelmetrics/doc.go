// Package otelmetrics exports through OpenTelemetry what the packages measure. It is a module of its own, so that nobody
// else downloads OpenTelemetry.
//
// # Promises
//
//   - Names, labels, buckets and values are those that Prometheus scrapes, so that rules and dashboards stay true behind a
//     collector; units are added, since OpenTelemetry has them beside the name.
//   - Exemplars keep their trace.
//   - Counters are cumulative, whatever the reader prefers: they are read from what has been counted already.
//
// # When things fail
//
// A collector that fails hides only its own series, and OpenTelemetry's error handler is told.
//
// # Use
//
//	exporter, err := otlpmetrichttp.New(ctx)
//	reader := metric.NewPeriodicReader(exporter, metric.WithProducer(otelmetrics.NewProducer(registry)))
//	provider := metric.NewMeterProvider(metric.WithReader(reader), metric.WithResource(resource))
//	defer provider.Shutdown(ctx)
package otelmetrics
