package metrics

import (
	"math"
	"strings"
	"testing"
)

func TestLevel(t *testing.T) {
	nan := math.NaN()
	// By metric: fine, fine at the very threshold, warning, warning at the very threshold, critical.
	for id, values := range map[string][5]float64{
		"api_latency_p95":     {.1, .2, .201, .5, .501},
		"api_latency_p99":     {.1, .5, .501, 1, 1.01},
		"api_error_rate":      {0, .001, .0011, .01, .011},
		"db_pool_utilization": {.5, .8, .81, .9, .91},
		"db_query_time":       {.01, .1, .101, .5, .501},
		"db_slow_queries":     {0, 10, 10.1, 50, 50.1},
		"cache_hit_rate":      {1, .8, .79, .6, .59},
		"cache_memory":        {.1, .8, .81, .9, .91},
		"cache_stale_ratio":   {0, .01, .011, .05, .051},
		"cache_evictions":     {0, 10, 10.1, 50, 50.1},
		"queue_depth":         {0, 1000, 1001, 5000, 5001},
		"job_time":            {1, 30, 30.1, 60, 60.1},
		"job_failed_rate":     {0, .01, .011, .05, .051},
	} {
		m := metric(t, id)
		for i, want := range []Level{OK, OK, Warning, Warning, Critical} {
			if got := m.Level(values[i]); got != want {
				t.Errorf("%s %v is %v, want %v", id, values[i], got, want)
			}
		}
		if got := m.Level(nan); got != Unknown {
			t.Errorf("%s NaN is %v, want unknown", id, got)
		}
	}
	if got := metric(t, "api_throughput").Level(1e9); got != OK {
		t.Errorf("a metric without thresholds is %v, want ok", got)
	}
}

func metric(t testing.TB, id string) KeyMetric {
	t.Helper()
	for _, m := range KeyMetrics().Rows {
		if m.ID == id {
			return m
		}
	}
	t.Fatalf("no key metric %s", id)
	return KeyMetric{}
}

func TestKeyMetricsAreValid(t *testing.T) {
	if err := KeyMetrics().validate(); err != nil {
		t.Error(err)
	}
	for _, m := range KeyMetrics().Rows {
		if m.HasThresholds() && m.Step == "" {
			t.Errorf("%s alerts and says not what to do", m.ID)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, test := range map[string]struct {
		id     string
		change func(*KeyMetric)
		want   string
	}{
		"no boundary at the threshold": {"api_latency_p95", func(m *KeyMetric) { m.Warning = .25 }, "0.25 must be a bucket boundary"},
		"none above":                   {"job_time", func(m *KeyMetric) { m.Critical = 600 }, "600 must be a bucket boundary"},
		"no boundary at the bound":     {"db_slow_queries", func(m *KeyMetric) { m.Param = .2 }, "0.2 must be a bucket boundary"},
		"wrong way round":              {"cache_hit_rate", func(m *KeyMetric) { m.Critical = .9 }, "critical 0.9 must be below warning 0.8"},
		"fires at once":                {"queue_depth", func(m *KeyMetric) { m.CriticalFor = 0 }, "give one above 0"},
		"no name for alerts":           {"queue_depth", func(m *KeyMetric) { m.Alert = "" }, "no name for its alerts"},
		"clear is no boundary":         {"api_latency_p95", func(m *KeyMetric) { m.WarningClear = .19 }, "0.19 must be a bucket boundary"},
		"clear is the threshold":       {"queue_depth", func(m *KeyMetric) { m.CriticalClear = 5000 }, "critical 5000 must be above its clear 5000"},
		"clear past the threshold":     {"cache_hit_rate", func(m *KeyMetric) { m.WarningClear = .7 }, "warning 0.8 must be below its clear 0.7"},
		"clear below zero":             {"queue_depth", func(m *KeyMetric) { m.WarningClear = -1 }, "which must be above 0"},
		"negative time":                {"queue_depth", func(m *KeyMetric) { m.KeepFiringFor = -1 }, "must not be negative"},
		"events of a gauge":            {"queue_depth", func(m *KeyMetric) { m.MinEvents = 5 }, "only to a metric made of events"},
		"events of a rate":             {"api_throughput", func(m *KeyMetric) { m.MinEvents = 1 }, "only to a metric made of events"},
		"events are not a number":      {"api_latency_p95", func(m *KeyMetric) { m.MinEvents = math.NaN() }, "min_events NaN"},
		"selected is not among":        {"cache_stale_ratio", func(m *KeyMetric) { m.Among = []string{"same"} }, `let the value "stale" be one of them`},
		"among of a rate":              {"api_throughput", func(m *KeyMetric) { m.Among = []string{""} }, "give that only to a share"},
		"unknown scope":                {"queue_depth", func(m *KeyMetric) { m.Scope = []string{"route"} }, "no label route"},
		"unknown label":                {"api_error_rate", func(m *KeyMetric) { m.Label = "status" }, "no label status"},
	} {
		t.Run(name, func(t *testing.T) {
			m := metric(t, test.id)
			test.change(&m)
			if err := m.validate(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("validate: %v, want %q", err, test.want)
			}
		})
	}
	m := metric(t, "queue_depth")
	m.WarningClear, m.CriticalClear = 999, 4000
	if err := m.validate(); err != nil || m.threshold(Warning).Clear != 999 || m.threshold(Critical).Clear != 4000 {
		t.Errorf("clears %+v: %v", m.Thresholds(), err)
	}
	m = metric(t, "api_latency_p95")
	m.Warning = m.Series.Buckets[0]
	if err := m.validate(); err != nil {
		t.Errorf("a threshold at the first boundary: %v", err)
	}
}

// What the table says of a metric, without a value.
func TestThresholds(t *testing.T) {
	hit, pool, throughput := metric(t, "cache_hit_rate"), metric(t, "db_pool_utilization"), metric(t, "api_throughput")
	if hit.Op.String() != "below" || hit.Op.symbol() != "<" || pool.Op.String() != "above" || pool.Op.symbol() != ">" {
		t.Errorf("%s %s, %s %s", hit.Op, hit.Op.symbol(), pool.Op, pool.Op.symbol())
	}
	bounds := pool.Thresholds()
	if len(bounds) != 2 || bounds[0] != (Threshold{Warning, .8, pool.WarningFor, 0}) || bounds[1] != (Threshold{Critical, .9, pool.CriticalFor, 0}) {
		t.Errorf("%+v", bounds)
	}
	if bounds[0] != pool.threshold(Warning) || bounds[1] != pool.threshold(Critical) {
		t.Errorf("one by one %+v %+v", pool.threshold(Warning), pool.threshold(Critical))
	}
	if got := throughput.Thresholds(); got != nil {
		t.Errorf("a metric without thresholds has %+v", got)
	}
	for _, m := range KeyMetrics().Rows {
		if want := m.Statistic == Quantile || m.Statistic == Share || m.Statistic == OverPerMinute; m.hasEvents() != want {
			t.Errorf("%s has events: %v", m.ID, !want)
		}
	}
}

// One metric mutes another where it is above zero itself, and only there.
func TestMuted(t *testing.T) {
	m := KeyMetric{Unless: "other"}
	values := map[string]map[string]float64{"other": {"here": 1, "zero": 0}, "": {"here": 1}}
	if !m.muted("here", values) || m.muted("zero", values) || m.muted("there", values) {
		t.Error("want muted where the other is above zero, and only there")
	}
	if (KeyMetric{}).muted("here", values) {
		t.Error("muted by no metric")
	}
}

func BenchmarkLevel(b *testing.B) {
	m := metric(b, "api_latency_p95")
	b.ReportAllocs()
	for b.Loop() {
		m.Level(.3)
	}
}
