package metrics

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Markdown returns the table as a document: the key metrics with their thresholds, every alert with the runbook's step,
// every series with its labels and buckets, and what common exporters call the same.
func (t Table) Markdown() []byte {
	t = t.withDefaults()
	var b bytes.Buffer
	b.WriteString("# Metrics\n\n<!-- Made by scaleaware's metrics.Table.Markdown from its table of key metrics. Change the table, not this file. -->\n\n" +
		"Alerts, dashboards, instruments and this page are made of one table, so that they agree.\n")
	t.writeKeyMetrics(&b)
	t.writeAlerts(&b)
	t.writeSeries(&b)
	writeForeignNames(&b)
	return b.Bytes()
}

func (t Table) writeKeyMetrics(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n## Key metrics\n\nRates, quantiles and shares are of the last %s. A value at a threshold is still fine.\n\n", words(t.Window))
	tableHead(b, "ID", "Metric", "Scope", "Warning", "Critical", "Record")
	for _, m := range t.Rows {
		warning, critical := "–", "–"
		if bounds := m.Thresholds(); len(bounds) > 0 {
			warning, critical = m.bound(bounds[0]), m.bound(bounds[1])
		}
		record := code(t.record(m))
		if m.Compat != "" {
			record += ", " + code(m.Compat)
		}
		tableRow(b, code(m.ID), m.Title, codes(m.Scope), warning, critical, record)
	}
	b.WriteString("\nThe records without the prefix bear the names that the runbook's own rules use, and `cache_stale_ratio` is for rules of your own.\n")
}

func (m KeyMetric) bound(t Threshold) string {
	text := fmt.Sprintf("%s %s for %s", m.Op, m.Unit.format(t.Value), words(t.For))
	if t.Clear != 0 {
		text += ", until no longer " + m.Op.String() + " " + m.Unit.format(t.Clear)
	}
	return text
}

func (t Table) writeAlerts(b *bytes.Buffer) {
	b.WriteString("\n## Alerts\n\nEach has the labels `severity` and `metric` and those of its scope, and the annotations `summary` and `runbook`.\n\n")
	tableHead(b, "Alert", "Severity", "When", "What to do")
	for _, r := range t.rules() {
		if r.alert == "" {
			continue
		}
		when := code(r.expr) + " for " + words(r.due)
		if r.keep > 0 {
			when += ", keeps firing for " + words(r.keep)
		}
		tableRow(b, r.alert, r.severity.String(), when, r.step)
	}
}

func (t Table) writeSeries(b *bytes.Buffer) {
	b.WriteString("\n## Series\n")
	for _, area := range areaOrder {
		first := true
		for _, s := range Contract() {
			if s.area() != area {
				continue
			}
			if first {
				fmt.Fprintf(b, "\n### %s\n\n", area)
				tableHead(b, "Name", "Type", "Unit", "Labels", "What it says")
				first = false
			}
			help := s.Help
			if s.Kind == Histogram {
				help += " Buckets: " + joinFloats(t.buckets(s)) + "."
			}
			tableRow(b, code(s.Name), s.Kind.String(), s.unit(), codes(s.Labels), help)
		}
	}
}

// unit is what a series' name says it counts.
func (s Series) unit() string {
	name := strings.TrimSuffix(s.Name, "_total")
	for suffix, unit := range map[string]string{"_timestamp_seconds": "Unix seconds", "_bytes": "bytes", "_connections": "connections"} {
		if strings.HasSuffix(name, suffix) {
			return unit
		}
	}
	switch {
	case strings.HasSuffix(name, "_seconds"):
		return "seconds"
	case s.Kind == Counter:
		return "events"
	}
	return "count"
}

// String returns counter, gauge or histogram, as Prometheus says it.
func (k Kind) String() string { return [...]string{"counter", "gauge", "histogram"}[k] }

// foreignNames are what exporters that may be scraped beside us call the same. We take none of their names, so that
// the two never mix.
var foreignNames = []struct {
	ours           Series
	theirs, remark string
}{
	{HTTPRequestDuration, "OpenTelemetry `http.server.request.duration`", "the same name in Prometheus; `route`, `method`, `code` for `http.route`, `http.request.method`, `http.response.status_code`"},
	{HTTPActiveRequests, "OpenTelemetry `http.server.active_requests`", "one gauge of the process"},
	{DBPoolAcquired, "OpenTelemetry `db.client.connection.count`", "those with the state `used`; `scaleaware-rules -otel-names` records them as such"},
	{DBPoolMax, "OpenTelemetry `db.client.connection.max`", "as above"},
	{DBQueryDuration, "OpenTelemetry `db.client.operation.duration`", "postgres_exporter has sums by statement only, from `pg_stat_statements`"},
	{DBSize, "postgres_exporter `pg_database_size_bytes`", "`datname` in both; ours is of the service's own database"},
	{DBServerMax, "postgres_exporter `pg_settings_max_connections`", "ours without the reserved ones"},
	{DBReplicaStale, "postgres_exporter `pg_replication_lag_seconds`", "ours is an upper bound, seen from the service"},
	{CacheMemoryUsed, "redis_exporter `redis_memory_used_bytes`", "ours without what Redis does not count for eviction"},
	{CacheMemoryMax, "redis_exporter `redis_memory_max_bytes`", "ours is absent where theirs is 0: no limit"},
	{CacheEvicted, "redis_exporter `redis_evicted_keys_total`", ""},
	{CacheRequests, "redis_exporter `redis_keyspace_hits_total`, `redis_keyspace_misses_total`", "theirs count sessions, queues and locks as well"},
	{QueueTasks, "asynq's x/metrics `asynq_tasks_enqueued_total`", "by `state` in both; take the maximum over instances, never the sum"},
	{QueueOldestPending, "asynq's x/metrics `asynq_queue_latency_seconds`", ""},
}

func writeForeignNames(b *bytes.Buffer) {
	b.WriteString("\n## Names in other exporters\n\nThese may be scraped beside us. The names differ on purpose, so that no rule adds theirs to ours.\n\n")
	tableHead(b, "Ours", "Theirs", "Remark")
	for _, n := range foreignNames {
		tableRow(b, code(n.ours.Name), n.theirs, n.remark)
	}
}

func tableHead(b *bytes.Buffer, names ...string) {
	tableRow(b, names...)
	b.WriteString(strings.Repeat("|---", len(names)) + "|\n")
}

func tableRow(b *bytes.Buffer, cells ...string) {
	for i, c := range cells {
		if c == "" {
			cells[i] = "–"
		}
		cells[i] = strings.ReplaceAll(cells[i], "|", `\|`)
	}
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func code(s string) string { return "`" + s + "`" }

func codes(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = code(s)
	}
	return strings.Join(out, ", ")
}

func joinFloats(list []float64) string {
	out := make([]string, len(list))
	for i, f := range list {
		out[i] = strconv.FormatFloat(f, 'f', -1, 64)
	}
	return strings.Join(out, ", ")
}

// words writes a duration for people.
func words(d time.Duration) string {
	if d >= time.Minute && d%time.Minute == 0 {
		return strconv.Itoa(int(d/time.Minute)) + " min"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " s"
}
