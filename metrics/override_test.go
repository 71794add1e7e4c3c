package metrics

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOverride(t *testing.T) {
	before := KeyMetrics()
	table, err := before.Override(map[string]Override{
		"cache_hit_rate":  {Warning: new(.9), WarningFor: new(time.Minute), MinEvents: new(50.)},
		"queue_depth":     {Critical: new(8000.), CriticalFor: new(30 * time.Second), KeepFiringFor: new(time.Duration(0))},
		"db_pool_waiters": {Warning: new(1.), Critical: new(5.)}, // had none
	})
	if err != nil {
		t.Fatal(err)
	}
	hits, _ := table.Row("cache_hit_rate")
	if hits.Warning != .9 || hits.Critical != .6 || hits.WarningFor != time.Minute || hits.CriticalFor != 5*time.Minute || hits.MinEvents != 50 {
		t.Errorf("%+v", hits)
	}
	depth, _ := table.Row("queue_depth")
	if depth.Warning != 1000 || depth.Critical != 8000 || depth.CriticalFor != 30*time.Second || depth.KeepFiringFor != 0 {
		t.Errorf("%+v", depth)
	}
	waiters, _ := table.Row("db_pool_waiters")
	if diff := cmp.Diff([]Threshold{{Warning, 1, 5 * time.Minute, 0}, {Critical, 5, 2 * time.Minute, 0}}, waiters.Thresholds()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(KeyMetrics(), before); diff != "" {
		t.Errorf("the table itself was changed: %s", diff)
	}
}

func TestOverrideReportsAllMistakes(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	_, err := KeyMetrics().Override(map[string]Override{
		"api_latency":         {},
		"api_latency_p95":     {Warning: &nan, Critical: &inf},
		"api_latency_p99":     {Warning: new(0.), CriticalFor: new(-time.Second)},
		"api_error_rate":      {Warning: new(5.), MinEvents: new(-1.)},
		"cache_hit_rate":      {Critical: new(.9)},
		"cache_evictions":     {Warning: new(60.)},
		"cache_evicting":      {Warning: new(0.), Critical: new(1.)},
		"queue_depth":         {WarningFor: new(time.Duration(0)), KeepFiringFor: new(-time.Second), MinEvents: new(5.)},
		"db_size":             {Warning: new(1e9)},
		"db_pool_utilization": {Critical: new(1.)},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`override of "api_latency": there is no such key metric, take one of api_latency_p95, `,
		"api_latency_p95: warning is NaN, give a finite number", "api_latency_p95: critical is +Inf, give a finite number",
		"api_latency_p99: warning is 0, give a number above 0", "api_latency_p99: critical_for is -1s, give a time above 0",
		"api_error_rate: warning is 5, and a ratio is never above that", "api_error_rate: min_events is -1, give 0 or more",
		"cache_hit_rate: critical 0.9 must be below warning 0.8: change one of them",
		"cache_evictions: critical 50 must be above warning 60: change one of them",
		"cache_evicting: it only says something about other metrics",
		"queue_depth: warning_for is 0s, give a time above 0", "queue_depth: keep_firing_for is -1s, give 0 or more", "queue_depth: min_events is 5, and the metric is not made of events",
		"db_size: it has no thresholds, give both warning and critical",
		"db_pool_utilization: critical is 1, and a ratio is never above that",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q", want)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 15 {
		t.Errorf("%d mistakes, want 15:\n%v", n, err)
	}
}

func TestReadOverrides(t *testing.T) {
	got, err := ReadOverrides(strings.NewReader(`{
		"api_latency_p95": {"warning": 0.25, "critical": 0.6, "warning_for_seconds": 90, "critical_for_seconds": 0.5, "keep_firing_for_seconds": 60, "min_events": 100},
		"queue_depth": {"critical": 1e4}, "db_slow_queries": {}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Override{
		"api_latency_p95": {Warning: new(.25), Critical: new(.6), WarningFor: new(90 * time.Second), CriticalFor: new(500 * time.Millisecond), KeepFiringFor: new(time.Minute), MinEvents: new(100.)},
		"queue_depth":     {Critical: new(1e4)}, "db_slow_queries": {},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReadOverridesIsStrict(t *testing.T) {
	for text, wants := range map[string][]string{
		``:                                   {"must be a JSON object", "EOF"},
		`[]`:                                 {"does not begin with {"},
		`{"a": {"warning": 1}`:               {"must be a JSON object"},
		`{"a": {}} {}`:                       {"something follows"},
		`{"a": {}, "a": {}}`:                 {"override of a: it is there twice"},
		`{"a": {"warn": 1}, "b": {"for":2}}`: {"override of a: take warning", `"warn"`, "override of b", `"for"`},
		`{"a": {"warning": "5m"}}`:           {"override of a", "string"},
		`{"a": {"warning": 1e999}}`:          {"override of a", "1e999"},
		`{"a": {"warning": NaN}}`:            {"invalid character 'N'"},
		`{"a": null}`:                        {"override of a", "it is null"},
		`{"a": 5}`:                           {"override of a"},
	} {
		_, err := ReadOverrides(strings.NewReader(text))
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", text, err, want)
			}
		}
	}
	// What no time.Duration holds must not become a negative one.
	got, err := ReadOverrides(strings.NewReader(`{"queue_depth": {"warning_for_seconds": 1e300}}`))
	if err != nil || *got["queue_depth"].WarningFor <= 0 {
		t.Errorf("%v %v", got, err)
	}
}
