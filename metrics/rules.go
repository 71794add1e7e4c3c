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
// db_connection_pool_utilization as ratios. It loads in Prometheus 2.42 and later.
func (t Table) Rules() []byte {
	t = t.withDefaults()
	var b bytes.Buffer
	b.WriteString("# Made by scaleaware's metrics.Rules from its table of key metrics. Change the table, not this file.\n")
	fmt.Fprintf(&b, "groups:\n  - name: scaleaware\n    interval: %s\n    rules:\n", promDuration(t.Interval))
	for _, m := range t.Rows {
		rule(&b, "record", t.record(m), m.expression(promDuration(t.Window)))
		if m.Compat != "" {
			expr := t.record(m)
			if m.CompatFactor != 1 {
				expr = fmt.Sprintf("%g * %s", m.CompatFactor, expr)
			}
			rule(&b, "record", m.Compat, expr)
		}
	}
	for _, m := range t.Rows {
		for _, bound := range m.Thresholds() {
			rule(&b, "alert", m.Alert, m.condition(bound, t))
			fmt.Fprintf(&b, "        for: %s\n", promDuration(bound.For))
			if m.KeepFiringFor > 0 {
				fmt.Fprintf(&b, "        keep_firing_for: %s\n", promDuration(m.KeepFiringFor))
			}
			fmt.Fprintf(&b, "        labels:\n          severity: %s\n          metric: %s\n", bound.Severity, m.ID)
			summary := m.summary(bound, func(name string) string { return "{{ $labels." + name + " }}" })
			fmt.Fprintf(&b, "        annotations:\n          summary: %s\n          runbook: %s\n", quote(summary), quote(m.Step))
		}
	}
	return b.Bytes()
}

// record is the name of a row's record. The rows are written for 5m.
func (t Table) record(m KeyMetric) string {
	return recordPrefix + strings.ReplaceAll(m.Record, "5m", promDuration(t.Window))
}

func rule(b *bytes.Buffer, kind, name, expr string) {
	fmt.Fprintf(b, "      - %s: %s\n        expr: %s\n", kind, name, quote(expr))
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
