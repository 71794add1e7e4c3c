package metrics

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	recordPrefix = "scaleaware:"
	ruleInterval = 30 * time.Second
)

// Rules returns a Prometheus rule file: for every key metric a recording rule, and where it has thresholds a warning
// and a critical alert with the labels severity and metric. Three more records bear the names that the runbook's own
// rules use, so that those load unchanged and fire: api_latency_p95 in milliseconds, cache_hit_rate and
// db_connection_pool_utilization as ratios. It loads in Prometheus 2.42 and later.
func Rules() []byte {
	var b bytes.Buffer
	b.WriteString("# Made by scaleaware's metrics.Rules from its table of key metrics. Change the table, not this file.\n")
	fmt.Fprintf(&b, "groups:\n  - name: scaleaware\n    interval: %s\n    rules:\n", promDuration(ruleInterval))
	table := KeyMetrics()
	for _, m := range table {
		rule(&b, "record", recordPrefix+m.Record, m.expression())
		if m.Compat != "" {
			expr := recordPrefix + m.Record
			if m.CompatFactor != 1 {
				expr = fmt.Sprintf("%g * %s", m.CompatFactor, expr)
			}
			rule(&b, "record", m.Compat, expr)
		}
	}
	for _, m := range table {
		for _, t := range m.Thresholds() {
			rule(&b, "alert", m.Alert, fmt.Sprintf("%s%s %s %s", recordPrefix, m.Record, m.Op.symbol(), strconv.FormatFloat(t.Value, 'f', -1, 64)))
			fmt.Fprintf(&b, "        for: %s\n", promDuration(t.For))
			fmt.Fprintf(&b, "        labels:\n          severity: %s\n          metric: %s\n", t.Severity, m.ID)
			summary := m.summary(t, func(name string) string { return "{{ $labels." + name + " }}" })
			fmt.Fprintf(&b, "        annotations:\n          summary: %s\n          runbook: %s\n", quote(summary), quote(m.Step))
		}
	}
	return b.Bytes()
}

func rule(b *bytes.Buffer, kind, name, expr string) {
	fmt.Fprintf(b, "      - %s: %s\n        expr: %s\n", kind, name, quote(expr))
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func promDuration(d time.Duration) string {
	if d%time.Minute == 0 {
		return strconv.Itoa(int(d/time.Minute)) + "m"
	}
	return strconv.Itoa(int(d/time.Second)) + "s"
}
