package metrics

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const recordPrefix = "scaleaware:"

// Rules returns the rule file of [KeyMetrics].
func Rules() []byte { return KeyMetrics().Rules() }

// Rules returns a Prometheus rule file: for every key metric a recording rule, and where it has thresholds a warning
// and a critical alert with the labels severity and metric. Three more records bear the names that the runbook's own
// rules use, so that those load unchanged and fire: api_latency_p95 in milliseconds, cache_hit_rate and
// db_connection_pool_utilization as ratios. One more is cache_stale_ratio, for rules of your own. Three alerts watch the
// monitoring itself: a target that is down, a sampler that has vanished, and nothing of ours at all. The file loads in
// Prometheus 2.42 and later.
func (t Table) Rules() []byte {
	t = t.withDefaults()
	var b bytes.Buffer
	b.WriteString("# Made by scaleaware's metrics.Rules from its table of key metrics. Change the table, not this file.\n")
	fmt.Fprintf(&b, "groups:\n  - name: scaleaware\n    interval: %s\n    rules:\n", promDuration(t.Interval))
	for _, r := range t.rules() {
		r.write(&b)
	}
	return b.Bytes()
}

// rule is one of the file's. Prometheus evaluates them in their order, so that alerts see this tick's records.
type rule struct {
	record, alert string // one of them
	state         string // of a record of connections
	expr          string
	due, keep     time.Duration
	severity      Level
	metric        string
	summary, step string
}

func (t Table) rules() []rule {
	var list []rule
	for _, m := range t.Rows {
		list = append(list, rule{record: t.record(m), expr: m.expression(promDuration(t.Window), "")})
		if m.Compat != "" {
			expr := t.record(m)
			if m.CompatFactor != 1 {
				expr = fmt.Sprintf("%g * %s", m.CompatFactor, expr)
			}
			list = append(list, rule{record: m.Compat, expr: expr})
		}
	}
	if t.OTelNames {
		list = append(list, otelNames()...)
	}
	for _, m := range t.Rows {
		for _, bound := range m.Thresholds() {
			list = append(list, rule{
				alert: m.Alert, expr: m.condition(bound, t), due: bound.For, keep: m.KeepFiringFor, severity: bound.Severity, metric: m.ID,
				summary: m.summary(bound, func(name string) string { return "{{ $labels." + name + " }}" }), step: m.Step,
			})
		}
	}
	return append(list, watches()...)
}

// otelNames are records of the pools under OpenTelemetry's names. A pool there is one of a role here.
func otelNames() []rule {
	named := func(s Series) string {
		return fmt.Sprintf(`label_join(%s, "db_client_connection_pool_name", "/", "pool", "role")`, s.Name)
	}
	return []rule{
		{record: "db_client_connection_count", state: "used", expr: named(DBPoolAcquired)},
		{record: "db_client_connection_max", expr: named(DBPoolMax)},
	}
}

func (r rule) write(b *bytes.Buffer) {
	if r.record != "" {
		fmt.Fprintf(b, "      - record: %s\n        expr: %s\n", r.record, quote(r.expr))
		if r.state != "" {
			fmt.Fprintf(b, "        labels:\n          db_client_connection_state: %s\n", r.state)
		}
		return
	}
	fmt.Fprintf(b, "      - alert: %s\n        expr: %s\n        for: %s\n", r.alert, quote(r.expr), promDuration(r.due))
	if r.keep > 0 {
		fmt.Fprintf(b, "        keep_firing_for: %s\n", promDuration(r.keep))
	}
	fmt.Fprintf(b, "        labels:\n          severity: %s\n          metric: %s\n", r.severity, r.metric)
	fmt.Fprintf(b, "        annotations:\n          summary: %s\n          runbook: %s\n", quote(r.summary), quote(r.step))
}

// record is the name of a row's record. The rows are written for 5m.
func (t Table) record(m KeyMetric) string {
	return recordPrefix + strings.ReplaceAll(m.Record, "5m", promDuration(t.Window))
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// promDuration writes d as Prometheus does, in one unit.
func promDuration(d time.Duration) string {
	switch {
	case d%time.Minute == 0:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	case d%time.Second == 0:
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	}
	return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
}
