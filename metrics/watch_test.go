package metrics

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What no process can tell of itself is told by Prometheus: when, and of what, is played to the real promtool.
func TestPromtoolFiresTheWatches(t *testing.T) {
	rule := func(alert string) rule {
		for _, w := range watches() {
			if w.alert == alert {
				return w
			}
		}
		t.Fatalf("there is no alert %s", alert)
		return rule{}
	}
	const vanished, nothing, down = "ScaleawareSamplerVanished", "ScaleawareNothingExported", "ScaleawareTargetDown"
	sampled := func(instance, pkg, values string) promInput {
		return promInput{SamplerSuccess.Name + `{job="api",instance="` + instance + `",package="` + pkg + `",task="sample"}`, values}
	}
	target := func(job, instance, values string) promInput {
		return promInput{`up{job="` + job + `",instance="` + instance + `"}`, values}
	}
	var tests []*promSeries
	// Ticks are 30 s apart, so that "_x20" are ten minutes.
	for name, test := range map[string]struct {
		alert  string
		labels map[string]string // with which it fires
		input  []promInput
		firing map[string]bool // at these times
	}{
		"the only instance that sampled a cache goes": {
			vanished, map[string]string{"package": "cache", "task": "sample"},
			[]promInput{sampled("a", "cache", "0+30x20 stale _x200"), sampled("a", "queue", "0+30x20 stale _x200"), sampled("b", "queue", "0+30x200")},
			map[string]bool{"10m": false, "15m": false, "15m30s": true, "1h9m30s": true, "1h10m30s": false},
		},
		"another takes over": {
			vanished, nil,
			[]promInput{sampled("a", "cache", "0+30x20 stale _x60"), sampled("b", "cache", "_x28 0+30x60")},
			map[string]bool{"14m": false, "16m": false, "30m": false},
		},
		"another takes over late": {
			vanished, map[string]string{"package": "cache", "task": "sample"},
			[]promInput{sampled("a", "cache", "0+30x20 stale _x60"), sampled("b", "cache", "_x40 0+30x60")},
			map[string]bool{"19m30s": true, "20m": false, "30m": false},
		},
		"nothing was ever exported": {
			nothing, map[string]string{}, nil,
			map[string]bool{"4m30s": false, "5m": true, "1h": true},
		},
		"the last instance goes and comes back": {
			nothing, map[string]string{},
			[]promInput{sampled("a", "cache", "0+30x20 stale _x18 0+30x20")},
			map[string]bool{"10m": false, "15m": false, "15m30s": true, "19m30s": true, "20m": false},
		},
		"one of two goes": {
			nothing, nil,
			[]promInput{sampled("a", "cache", "0+30x20 stale _x60"), sampled("b", "queue", "0+30x80")},
			map[string]bool{"5m": false, "16m": false, "30m": false},
		},
		"a process dies, and one that is not ours": {
			down, map[string]string{"job": "api", "instance": "a"},
			[]promInput{sampled("a", "cache", "0+30x20 stale _x200"), target("api", "a", "1x20 0x200"), target("api", "b", "1x220"), target("other", "c", "0x220")},
			map[string]bool{"10m": false, "12m": false, "12m30s": true, "1h9m30s": true, "1h10m30s": false},
		},
	} {
		of := rule(test.alert)
		labels := map[string]string{"severity": of.severity.String(), "metric": of.metric}
		summary := of.summary
		for label, value := range test.labels {
			labels[label] = value
			summary = strings.ReplaceAll(summary, "{{ $labels."+label+" }}", value)
		}
		played := &promSeries{Name: name, Interval: promTick.String(), Input: test.input}
		for at, firing := range test.firing {
			alert := promAlert{At: at, Name: test.alert}
			if firing {
				alert.Exp = []promExpAlert{{labels, map[string]string{"summary": summary, "runbook": of.step}}}
			}
			played.Alerts = append(played.Alerts, alert)
		}
		tests = append(tests, played)
	}
	rules := filepath.Join(t.TempDir(), "watches.rules.yml")
	if err := os.WriteFile(rules, Table{}.Rules(), 0o644); err != nil {
		t.Fatal(err)
	}
	runPromTests(t, tests, rules)
}
