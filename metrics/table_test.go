package metrics

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func TestTableValidate(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Table)
		want   string
	}{
		"twice":           {func(t *Table) { t.Rows = append(t.Rows, t.Rows[0]) }, `"api_latency_p95" twice`},
		"nameless":        {func(t *Table) { t.Rows[0].ID = "" }, "without a name"},
		"same record":     {func(t *Table) { t.Rows[1].Record = t.Rows[0].Record }, "another row has the record"},
		"window":          {func(t *Table) { t.Window = -time.Second }, "Table.Window -1s"},
		"tiny window":     {func(t *Table) { t.Window = time.Second + time.Microsecond }, "no time below a millisecond"},
		"tiny interval":   {func(t *Table) { t.Interval = time.Microsecond }, "no time below a millisecond"},
		"long interval":   {func(t *Table) { t.Window, t.Interval = time.Hour, 5*time.Minute }, "forgets a record after 5 min"},
		"few evaluations": {func(t *Table) { t.Window, t.Interval = time.Minute, 31*time.Second }, "Table.Window 1m0s is shorter than two Intervals of 31s"},
		"unless unknown":  {func(t *Table) { t.Rows[0].Unless = "nothing" }, `Unless is "nothing"`},
		"unless in scope": {func(t *Table) { t.Rows[0].Unless = "cache_evicting" }, "a row of the same scope"},
		"a row":           {func(t *Table) { t.Rows[0].Warning = 9 }, "must be above warning 9"},
	} {
		t.Run(name, func(t *testing.T) {
			table := KeyMetrics()
			test.change(&table)
			if err := table.validate(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("validate: %v, want %q", err, test.want)
			}
		})
	}
}

// One value moves the threshold everywhere: in the rules, in what alerts in the process, and in the instruments.
func TestTableKeepsInstrumentsAndRulesTogether(t *testing.T) {
	table, err := KeyMetrics().Override(map[string]Override{"api_latency_p95": {Warning: new(.25), Critical: new(20.)}})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	h, err := NewHistogram(table.Registerer(reg), HTTPRequestDuration)
	if err != nil {
		t.Fatal(err)
	}
	h.WithLabelValues("/", "GET", "2xx").Observe(.3)
	var bounds []float64
	for _, b := range must(reg.Gather())[0].GetMetric()[0].GetHistogram().GetBucket() {
		bounds = append(bounds, b.GetUpperBound())
	}
	want := []float64{.005, .01, .025, .05, .075, .1, .15, .2, .25, .3, .5, .75, 1, 2.5, 5, 10, 20, 40}
	if diff := cmp.Diff(want, bounds); diff != "" {
		t.Errorf("the instrument's buckets: %s", diff)
	}
	for _, id := range []string{"api_latency_p95", "api_latency_p99"} {
		row, _ := table.Row(id)
		if diff := cmp.Diff(want, row.Series.Buckets); diff != "" {
			t.Errorf("%s reads other buckets: %s", id, diff)
		}
	}
	rules := string(table.Rules())
	for _, line := range []string{"p95_5m > 0.25'", "p95_5m > 20'", "above 250 ms"} {
		if !strings.Contains(rules, line) {
			t.Errorf("the rules lack %q", line)
		}
	}
	c := must(NewCapacity(reg, &CapacityOptions{Table: table}))
	if m := c.Dashboard().measurement("api_latency_p95", ""); *m.Warning != .25 || *m.Critical != 20 {
		t.Errorf("the report has %v and %v", *m.Warning, *m.Critical)
	}
	if table.Registerer(nil) != nil {
		t.Error("a nil Registerer must stay nil: counted, not exported")
	}
	if len(HTTPRequestDuration.Buckets) != 15 || len(metric(t, "api_latency_p95").Series.Buckets) != 15 {
		t.Error("the contract's own buckets were changed")
	}
}

func TestTableWindowNamesTheRecords(t *testing.T) {
	table := KeyMetrics()
	table.Window, table.Interval = 90*time.Second, 1500*time.Millisecond
	rules := string(table.Rules())
	for _, want := range []string{"interval: 1500ms", "_duration_seconds:p95_90s", "_count[90s]", "http_errors:ratio_rate90s > 0.01"} {
		if !strings.Contains(rules, want) {
			t.Errorf("the rules lack %q", want)
		}
	}
	if strings.Contains(rules, "5m]") && !strings.Contains(rules, "[6h:5m]") {
		t.Error("a window of 5m is left")
	}
}

// A cache that evicts is meant to be full; one that does not refuses writes then.
func TestCapacityIsSilentAboutACacheThatEvicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, &CapacityOptions{Instance: "a"})
		defer r.stop()
		used, most, evicting := must(NewGauge(r.reg, CacheMemoryUsed)), must(NewGauge(r.reg, CacheMemoryMax)), must(NewGauge(r.reg, CacheEvicting))
		for server, evicts := range map[string]float64{"lru": 1, "noeviction": 0} {
			used.WithLabelValues(server).Set(95)
			most.WithLabelValues(server).Set(100)
			evicting.WithLabelValues(server).Set(evicts)
		}
		used.WithLabelValues("untold").Set(95)
		most.WithLabelValues("untold").Set(100)
		pass(10, nil)
		d := r.Dashboard()
		var alerts []string
		for _, a := range d.Alerts {
			alerts = append(alerts, a.Labels["server"]+" "+a.Labels["severity"])
		}
		if diff := cmp.Diff([]string{"noeviction critical", "untold critical", "noeviction warning", "untold warning"}, alerts); diff != "" {
			t.Error(diff)
		}
		for server, want := range map[string]Level{"lru": OK, "noeviction": Critical, "untold": Critical} {
			if m := d.measurement("cache_memory", server); m.State != want || *m.Value != .95 {
				t.Errorf("%s is %v at %v, want %v", server, m.State, *m.Value, want)
			}
		}
	})
}

// The newest success of all instances counts: one of them samples for all.
func TestCapacityTellsASamplerThatStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newShelf()
		a, b := run(t, &CapacityOptions{Instance: "a", Store: store}), run(t, &CapacityOptions{Instance: "b", Store: store})
		defer a.stop()
		defer b.stop()
		stopped := must(NewGauge(a.reg, SamplerSuccess)).WithLabelValues("cache", "sample")
		working := must(NewGauge(b.reg, SamplerSuccess)).WithLabelValues("cache", "sample")
		stopped.SetToCurrentTime()
		pass(400, working.SetToCurrentTime)
		if m := a.Dashboard().measurement("sampler_age", "sample"); m.State != OK || *m.Value > 10 {
			t.Errorf("%+v", m)
		}
		pass(305, nil)
		d := a.Dashboard()
		if m := d.measurement("sampler_age", "sample"); *m.Value < 300 || *m.Value > 306 {
			t.Errorf("age %v, want 305", *m.Value)
		}
		if diff := cmp.Diff([]string{"sampler_age warning firing"}, d.states()); diff != "" {
			t.Error(diff)
		}
	})
}
