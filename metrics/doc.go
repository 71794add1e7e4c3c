// Package metrics is the contract between what a service measures and what its operators see.
//
// One table has every series, and one every key metric of the runbook with its thresholds. Instruments, Prometheus
// rules, alerts, the capacity report and the ranking of bottlenecks are all made of them, so that they agree. No other
// place in the module names a metric.
//
// # Promises
//
//   - A latency threshold is a bucket boundary with a finite one above it: p95 is past 200 ms exactly when fewer than
//     95 % of requests took 200 ms or less, without an error of interpolation.
//   - Every rule and every panel selects series that exist, with labels that they have: [Table.Audit] reads them all,
//     and NewCapacity fails when one does not. Every alert has been seen to fire, just past its threshold and not
//     before its time, by the real promtool. The runbook's own rules load unchanged and fire.
//   - What is not known is reported as unknown: a metric without traffic is null, a bottleneck without enough
//     observations says "not enough data", an evaluation that has stopped is not reported at all.
//   - Paths, methods and hosts that clients invent add no series.
//   - No flood of requests takes the place of a registered route, not even of one without traffic yet.
//   - A panicking handler counts as an error, and so does a panicking job.
//   - What one process samples for the fleet ([Sampler]) is absent after three missed samples, never frozen, and a scrape
//     asks no server.
//
// # When things fail
//
// A collector that fails hides only its own series. Without the [SnapshotStore], a [Capacity] reports on its own
// instance and says so in the field degraded. An instance that vanishes is left out when its snapshot expires, and what
// it counted stays in the window for as long as the window lasts. Failures in the background are counted in
// scaleaware_background_errors_total, and logged when they begin and when they end.
//
// # Alerts
//
// [Capacity] computes as Prometheus does: what an instance tells are samples with the time of their snapshot, and rates,
// quantiles, growth and the states of alerts are made of them with Prometheus's own arithmetic, as of version 2, or with
// LeftOpen as of version 3. That the states are equal is tested by replay of random scenarios, against promtool and
// against Prometheus 3's engine. Like there, a rate is over the whole window from the beginning, so that it is low until
// a window has passed; reports say warming until then.
//
// These differences are intended:
//
//   - A store that cannot be read resets nothing: what is known of the other instances counts for five minutes, as any
//     sample does. Prometheus ends a series with the first scrape that fails.
//   - A counter that appears counts from zero, as in a Prometheus that ingests zero samples for created timestamps. By
//     default Prometheus misses the first increase, and with it the only error of a route.
//   - The series of one instance are added before their rate is taken. One that is younger than the window is
//     extrapolated with the others, by at most one interval's worth.
//   - An instance that restarts begins its alerts anew; Prometheus restores those that were pending. In a fleet the
//     others go on.
//
// A [Webhook] tells of alerts where there is no Alertmanager.
//
// # Use
//
// Each package takes a Registerer in its options; give all of them one registry. Then:
//
//	httpMetrics, err := metrics.NewHTTP(registry, nil)
//	handler := httpMetrics.Middleware(mux)
//	capacity, err := metrics.NewCapacity(registry, &metrics.CapacityOptions{Store: store}) // redisfleet has the store
//	group.Go(func() error { return capacity.Run(ctx) })
//	ops, err := admin.New(capacity.Operations(), …)                                        // with metrics.Handler(registry)
//
// A pool without dbsplit is measured by pgxmetrics, a Redis client by redismetrics, a job that is not the queue's by
// [NewJob]. otelmetrics, a module of its own, exports all of it through OpenTelemetry.
//
// Every process runs a Capacity on the same store, so that any management listener reports on all of them.
//
// To read the contract: a [Series] is a variable such as [HTTPRequestDuration], with name, labels and buckets;
// [KeyMetrics] says what is made of them and what it means; docs/metrics.md has it all on one page. For Prometheus and
// Grafana, write rules and dashboard to files, by hand or with go generate:
//
//	//go:generate go run github.com/scaleaware/scaleaware/metrics/cmd/scaleaware-rules -o deploy
//
// # Thresholds of your own
//
// They are given in one place, and everything follows: buckets, rules, dashboard, docs, the report and its alerts.
//
//	overrides, err := metrics.ReadOverrides(file) // {"api_latency_p95": {"warning": 0.25, "critical": 0.6}}
//	table, err := metrics.KeyMetrics().Override(overrides)
//	httpMetrics, err := metrics.NewHTTP(table.Registerer(registry), nil) // and the packages' Options.Registerer
//	capacity, err := metrics.NewCapacity(registry, &metrics.CapacityOptions{Table: table, Store: store})
//
// and the same file to scaleaware-rules as -thresholds.
//
// An alert that comes and goes while its value moves around the threshold is given a bound of its own to end at:
//
//	{"queue_depth": {"warning": 1000, "warning_clear": 900, "critical": 5000, "critical_clear": 4000}}
//
// What fires goes on while the value is above 900, and nothing begins before it is above 1000. Prometheus remembers what
// fired in its own series ALERTS, which the rule reads.
package metrics
