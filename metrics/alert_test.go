package metrics

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Ticks are 30 s apart; P and F say that the warning is pending or firing, p and f the critical one.
func TestAlerts(t *testing.T) {
	table := []KeyMetric{metric(t, "api_latency_p95")} // warning after 5 m, critical after 2 m
	nan := math.NaN()
	repeat := func(v float64, n int) (out []float64) {
		for range n {
			out = append(out, v)
		}
		return out
	}
	join := func(parts ...[]float64) (out []float64) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	for name, test := range map[string]struct {
		values []float64
		want   string
	}{
		"fine":                        {repeat(.2, 3), "- - - "},
		"fires when for has passed":   {repeat(.3, 12), "P P P P P P P P P P F F "},
		"both":                        {repeat(.6, 6), "Pp Pp Pp Pp Pf Pf "},
		"one tick below forgets":      {join(repeat(.3, 9), []float64{.2}, repeat(.3, 3)), "P P P P P P P P P - P P P "},
		"no value forgets":            {join(repeat(.3, 2), []float64{nan}, repeat(.3, 2)), "P P - P P "},
		"resolves at once":            {join(repeat(.6, 5), []float64{.3, .1}), "Pp Pp Pp Pp Pf P - "},
		"critical later than warning": {join(repeat(.3, 10), repeat(.6, 5)), "P P P P P P P P P P Fp Fp Fp Fp Ff "},
	} {
		t.Run(name, func(t *testing.T) {
			a := alerts{}
			got := ""
			for i, v := range test.values {
				a.tick(epoch.Add(time.Duration(i)*30*time.Second), table, map[string]map[string]float64{"api_latency_p95": {"": v}})
				state := ""
				for _, severity := range []Level{Warning, Critical} {
					if active := a[alertKey{"api_latency_p95", severity, ""}]; active != nil && active.state != inactive {
						letter := map[Level]string{Warning: "P", Critical: "p"}[severity]
						if active.state == firing {
							letter = map[Level]string{Warning: "F", Critical: "f"}[severity]
						}
						state += letter
					}
				}
				if state == "" {
					state = "-"
				}
				got += state + " "
			}
			if got != test.want {
				t.Errorf("states\n got %s\nwant %s", got, test.want)
			}
		})
	}
}

// Whoever is notified in groups, after the alert is pending anew, still has to hear that it had ended.
func TestEndIsToldOfAnAlertThatIsPendingAnew(t *testing.T) {
	table := []KeyMetric{metric(t, "api_latency_p95")}
	a, ticks := alerts{}, 0
	told := func(values ...float64) (ends int) {
		for _, v := range values {
			a.tick(epoch.Add(time.Duration(ticks)*30*time.Second), table, map[string]map[string]float64{"api_latency_p95": {"": v}})
			ticks++
		}
		for _, alert := range a.told("fleet") {
			if alert.Labels["severity"] == "critical" && alert.ResolvedAt != nil {
				ends++
			}
		}
		return ends
	}
	for _, step := range []struct {
		what   string
		values []float64
		ends   int
	}{
		{"it fires", []float64{.6, .6, .6, .6, .6}, 0},
		{"it ends", []float64{.1}, 1},
		{"it is pending anew", []float64{.6}, 1},
		{"that was nothing", []float64{.1}, 1},
		{"it fires again", []float64{.6, .6, .6, .6, .6}, 0},
	} {
		if got := told(step.values...); got != step.ends {
			t.Errorf("%s: %d ends are told, want %d", step.what, got, step.ends)
		}
	}
}

func TestAlertIsInhibitedByTheCriticalOneOnly(t *testing.T) {
	m := metric(t, "queue_depth") // warning after 5 min, critical after 2
	a, v := alerts{}, results{m.ID: {"normal": 1200}}
	for i := range 22 {
		if i == 11 {
			v[m.ID]["normal"] = 6000
		}
		a.tick(epoch.Add(time.Duration(i)*30*time.Second), []KeyMetric{m}, v)
		inhibited := map[string]bool{}
		for _, alert := range a.list("") {
			if alert.State == "firing" {
				inhibited[alert.Severity.String()] = alert.Inhibited
			}
		}
		want := map[string]bool{}
		if i >= 10 {
			want["warning"] = i >= 15
		}
		if i >= 15 {
			want["critical"] = false
		}
		if diff := cmp.Diff(want, inhibited); diff != "" {
			t.Errorf("tick %d: firing and inhibited: %s", i, diff)
		}
	}
}

func TestAlertList(t *testing.T) {
	table := KeyMetrics().Rows
	a := alerts{}
	for i := range 5 {
		a.tick(epoch.Add(time.Duration(i)*30*time.Second), table, map[string]map[string]float64{
			"queue_depth":    {"normal": 1200, "critical": 6000, "low-priority": 3},
			"cache_hit_rate": {"": .7},
		})
	}
	list := a.list("fleet")
	var lines []string
	for _, alert := range list {
		lines = append(lines, fmt.Sprint(alert.State, " ", alert.Severity, " ", alert.Annotations["summary"]))
	}
	want := []string{
		"firing critical Queue depth above 5000 jobs, queue critical",
		"pending warning Cache hit rate below 80 %",
		"pending warning Queue depth above 1000 jobs, queue critical",
		"pending warning Queue depth above 1000 jobs, queue normal",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"alertname": "QueueDepthHigh", "severity": "critical", "metric": "queue_depth", "queue": "critical"}, list[0].Labels); diff != "" {
		t.Error(diff)
	}
	if a := list[0]; a.Value != 6000 || a.Threshold != 5000 || !a.ActiveAt.Equal(epoch) || a.Scope != "fleet" || a.Unit != Jobs || a.Annotations["runbook"] == "" {
		t.Errorf("%+v", a)
	}
}
