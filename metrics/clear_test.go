package metrics

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// clearing are rows whose alerts end at a bound of their own, and what a gauge of theirs is at each tick: the share of
// the warning's threshold. Below it, in the warning's states, p is pending and F is firing.
var clearing = map[string]struct {
	id       string
	override Override
	values   []float64
	want     string
}{
	"between the two nothing begins": {
		"queue_depth", Override{WarningClear: new(900.), WarningFor: new(time.Minute), KeepFiringFor: new(time.Duration(0))},
		[]float64{.95, .95, .95, .95, .95, 1.1, .95, 1.1, 1.1, .95}, "- - - - - p - p p -",
	},
	"what fires goes on to the very bound": {
		"queue_depth", Override{WarningClear: new(900.), WarningFor: new(time.Minute), KeepFiringFor: new(time.Duration(0))},
		[]float64{1.1, 1.1, 1.1, .95, .91, 1, .95, .9, .95, .95}, "p p F F F F F - - -",
	},
	"without a bound of its own it ends at the threshold": {
		"queue_depth", Override{WarningFor: new(time.Minute), KeepFiringFor: new(time.Duration(0))},
		[]float64{1.1, 1.1, 1.1, 1, 1.1}, "p p F - p",
	},
	"the critical one's is not the warning's": {
		"queue_depth", Override{CriticalClear: new(4500.), WarningFor: new(time.Minute), KeepFiringFor: new(time.Duration(0))},
		[]float64{1.1, 1.1, 1.1, .95, 1.1}, "p p F - p",
	},
	"the time to go on begins at the bound, and a value between ends it": {
		"db_pool_utilization", Override{WarningClear: new(.7), WarningFor: new(time.Minute), KeepFiringFor: new(90 * time.Second)},
		[]float64{1.1, 1.1, 1.1, .9, .8, .8, .9, .8, .8, .8, .8, .9}, "p p F F F F F F F F - -",
	},
	"a cache that evicts ends it at once": {
		"cache_memory", Override{WarningClear: new(.7), WarningFor: new(time.Minute), KeepFiringFor: new(time.Duration(0))},
		[]float64{1.1, 1.1, 1.1, .9, -.9, .9, .9}, "p p F F - - -",
	},
}

// evaluated plays the values in the evaluator. Below zero, what the row's Unless names speaks against the alert.
func (m KeyMetric) evaluated(values []float64) string {
	a := alerts{}
	var states []string
	for i, share := range values {
		v := results{m.ID: {"x": max(share, -share) * m.Warning}}
		if share < 0 {
			v[m.Unless] = map[string]float64{"x": 1}
		}
		a.tick(epoch.Add(time.Duration(i)*promTick), []KeyMetric{m}, v)
		state := "-"
		if x := a[alertKey{m.ID, Warning, "x"}]; x != nil && x.state != inactive {
			state = map[alertState]string{pending: "p", firing: "F"}[x.state]
		}
		states = append(states, state)
	}
	return strings.Join(states, " ")
}

func (m KeyMetric) promValues(values []float64, other KeyMetric) (inputs []promInput) {
	var gauge, unless []string
	limit := 1.0
	if m.Of.Name != "" {
		limit = 1000
	}
	for _, share := range values {
		gauge = append(gauge, strconv.FormatFloat(max(share, -share)*m.Warning*limit, 'g', 12, 64))
		unless = append(unless, map[bool]string{true: "1", false: "0"}[share < 0])
	}
	labels := map[string]string{"queue_depth": `{queue="x",state="pending"}`, "db_pool_utilization": `{pool="x",role="primary"}`, "cache_memory": `{server="x"}`}[m.ID]
	inputs = append(inputs, promInput{m.Series.Name + labels, strings.Join(gauge, " ")})
	if m.Of.Name != "" {
		inputs = append(inputs, promInput{m.Of.Name + labels, "1000x" + strconv.Itoa(len(values))})
	}
	if m.Unless != "" {
		inputs = append(inputs, promInput{other.Series.Name + labels, strings.Join(unless, " ")})
	}
	return inputs
}

func TestAlertEndsAtItsClear(t *testing.T) {
	args := []string{"test", "rules"}
	for name, test := range clearing {
		table, err := KeyMetrics().Override(map[string]Override{test.id: test.override})
		if err != nil {
			t.Fatal(err)
		}
		m, _ := table.Row(test.id)
		if got := m.evaluated(test.values); got != test.want {
			t.Errorf("%s, evaluated here\n got %s\nwant %s", name, got, test.want)
		}
		other, _ := table.Row(m.Unless)
		prom := &promSeries{Name: name, Interval: promTick.String(), Input: m.promValues(test.values, other)}
		for i, state := range strings.Fields(test.want) {
			expr := promExpr{Expr: `ALERTS{severity="warning",metric="` + m.ID + `"}`, At: (time.Duration(i) * promTick).String()}
			if word := map[string]string{"p": "pending", "F": "firing"}[state]; word != "" {
				labels := `ALERTS{alertname="` + m.Alert + `",alertstate="` + word + `",metric="` + m.ID + `",severity="warning",` + m.Scope[0] + `="x"}`
				expr.Exp = []promSample{{labels, 1}}
			}
			prom.Exprs = append(prom.Exprs, expr)
		}
		args = append(args, writePromTests(t, []*promSeries{prom}, table.rulesFile(t, m)))
	}
	promtool(t, args...)
}

// Everything that is made of the table says where an alert ends, and promtool finds nothing to say of the rules.
func TestClearIsEverywhere(t *testing.T) {
	changes := map[string]Override{}
	for _, m := range KeyMetrics().Rows {
		if o := (Override{WarningClear: new(.9 * m.Warning), CriticalClear: new(.9 * m.Critical), MinEvents: new(5.)}); m.HasThresholds() {
			if m.Op == Below {
				*o.WarningClear, *o.CriticalClear = 1.1*m.Warning, 1.1*m.Critical
			}
			if m.ID == "api_latency_p95" {
				*o.WarningClear = .18
			}
			if !m.hasEvents() {
				o.MinEvents = nil
			}
			changes[m.ID] = o
		}
	}
	table := must(KeyMetrics().Override(changes))
	if err := table.Audit(); err != nil {
		t.Error(err)
	}
	rules := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(rules, table.Rules(), 0o644); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", "--lint=all", rules)
	want := `(scaleaware:http_request_duration_seconds:p95_5m > 0.2 or scaleaware:http_request_duration_seconds:p95_5m > 0.18 and on () ` +
		`ALERTS{alertname="APILatencyP95High", alertstate="firing", metric="api_latency_p95", severity="warning"}) and sum(increase(`
	if !strings.Contains(string(table.Rules()), want) {
		t.Errorf("the rules lack %s", want)
	}
	if want := "above 1000 jobs for 5 min, until no longer above 900 jobs"; !strings.Contains(string(table.Markdown()), want) {
		t.Errorf("the docs lack %q", want)
	}
	latency, _ := table.Row("api_latency_p95")
	if diff := cmp.Diff([]float64{.15, .18, .2}, latency.Series.Buckets[6:9]); diff != "" {
		t.Errorf("buckets: %s", diff)
	}
	depth, _ := table.Row("queue_depth")
	if row := depth.measurement("x", 950); row.State != OK || row.WarningClear == nil || *row.WarningClear != 900 || *row.CriticalClear != 4500 {
		t.Errorf("%+v", row)
	}
	if row := metric(t, "queue_depth").measurement("x", 950); row.WarningClear != nil || row.CriticalClear != nil {
		t.Errorf("%+v without one", row)
	}
	a := alerts{}
	for i, v := range []float64{1100, 950} {
		a.tick(epoch.Add(time.Duration(i)*time.Hour), []KeyMetric{depth}, results{depth.ID: {"x": v}})
	}
	a.tick(epoch.Add(2*time.Hour), []KeyMetric{depth}, results{depth.ID: {"x": 1100}})
	a.tick(epoch.Add(3*time.Hour), []KeyMetric{depth}, results{depth.ID: {"x": 1200}})
	if list := a.list(""); len(list) != 1 || list[0].Threshold != 1000 || list[0].Clear == nil || *list[0].Clear != 900 {
		t.Errorf("%+v", list)
	}
}

func TestClearThatMeansNothingIsRefused(t *testing.T) {
	_, err := KeyMetrics().Override(map[string]Override{
		"queue_depth":         {WarningClear: new(1000.)},
		"cache_hit_rate":      {CriticalClear: new(.5)},
		"db_pool_utilization": {CriticalClear: new(1.5)},
		"api_error_rate":      {WarningClear: new(-.1)},
		"db_size":             {WarningClear: new(1.)},
	})
	for _, want := range []string{
		"db_pool_utilization: critical_clear is 1.5, and a ratio is never above that", "api_error_rate: warning_clear is -0.1, give a number above 0",
		"db_size: it has no thresholds",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	_, err = KeyMetrics().Override(map[string]Override{"queue_depth": {WarningClear: new(1000.)}, "cache_hit_rate": {CriticalClear: new(.5)}})
	for _, want := range []string{"queue_depth: warning 1000 must be above its clear 1000", "cache_hit_rate: critical 0.6 must be below its clear 0.5"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	table := must(KeyMetrics().Override(map[string]Override{"queue_depth": {WarningClear: new(900.)}}))
	again := must(table.Override(map[string]Override{"queue_depth": {WarningClear: new(0.)}}))
	if err := again.Audit(); err != nil {
		t.Errorf("removed again: %v", err)
	}
}
