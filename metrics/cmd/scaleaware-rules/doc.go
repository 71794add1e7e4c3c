// Command scaleaware-rules writes what follows from the table of key metrics: the Prometheus rules, a Grafana dashboard
// and a page that documents them. Without arguments it writes the rules to standard output:
//
//	go run github.com/scaleaware/scaleaware/metrics/cmd/scaleaware-rules > scaleaware.rules.yml
//
// With a directory it writes scaleaware.rules.yml, scaleaware.dashboard.json and metrics.md into it, and with
// thresholds of your own all three are made of those:
//
//	//go:generate go run github.com/scaleaware/scaleaware/metrics/cmd/scaleaware-rules -o deploy -thresholds thresholds.json
//
// The file of thresholds is what metrics.ReadOverrides reads. Give the service the same one, so that its own alerts and
// buckets agree.
//
// -window and -interval change what rates are taken over and how often the rules are evaluated. They are in the rules, in
// the names of their records, in the dashboard and in the docs; give the service the same window, as its table's, so that
// its own alerts agree:
//
//	table, err := metrics.KeyMetrics().Override(overrides)
//	table.Window = 2 * time.Minute // scaleaware-rules -window 2m
//
// -otel-names adds what OpenTelemetry's semantic conventions call a pool's connections: db_client_connection_count and
// db_client_connection_max.
//
// A file that would be the same is not written again, one that would differ is replaced whole.
package main
