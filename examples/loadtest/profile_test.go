package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scaleaware/scaleaware/metrics"
)

const baseline, distributed = "load-test-baseline.yml", "load-test-distributed.yml"

func profile(t *testing.T, path, environment string) Profile {
	t.Helper()
	p, err := ReadProfile(path, environment)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBothProfilesAreValid(t *testing.T) {
	for _, environment := range []string{"", "short"} {
		small, large := profile(t, baseline, environment), profile(t, distributed, environment)
		if diff := cmp.Diff(small.Scenarios, large.Scenarios[:len(small.Scenarios)]); diff != "" {
			t.Errorf("users do other things in %s than in %s:\n%s", distributed, baseline, diff)
		}
	}
}

func TestThresholdsAreTheRunbooks(t *testing.T) {
	want := map[string]float64{}
	for _, row := range metrics.KeyMetrics().Rows {
		switch row.ID {
		case "api_latency_p95":
			want["http.response_time.p95"] = 1000 * row.Warning
		case "api_latency_p99":
			want["http.response_time.p99"] = 1000 * row.Warning
		case "api_error_rate":
			want["vusers.failed"] = row.Warning
		}
	}
	for _, path := range []string{baseline, distributed} {
		checks, err := profile(t, path, "").Config.Ensure.checks()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, check := range checks {
			for _, c := range check.comparisons {
				if _, ours := want[c.metric]; ours {
					got[c.metric] = c.bound
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", path, diff)
		}
	}
}

// The two processors must have the same functions, or one of the two tools tests less than the other.
func TestProcessorsHaveTheSameFunctions(t *testing.T) {
	blob, err := os.ReadFile("processor.mjs")
	if err != nil {
		t.Fatal(err)
	}
	var inJS []string
	for _, m := range regexp.MustCompile(`(?m)^export function (\w+)`).FindAllStringSubmatch(string(blob), -1) {
		inJS = append(inJS, m[1])
	}
	inGo := []string{"begin"} // NewTally does that
	for name := range processor {
		inGo = append(inGo, name)
	}
	slices.Sort(inJS)
	slices.Sort(inGo)
	if diff := cmp.Diff(inGo, inJS); diff != "" {
		t.Error(diff)
	}
}

func TestMistakesInAProfileAreFound(t *testing.T) {
	blob, err := os.ReadFile(distributed)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][3]string{
		"an unknown key":             {"arrivalRate: 25}", "arrivalrate: 25}", "arrivalrate"},
		"an unknown function":        {"countInstance", "countInstances", "countInstances"},
		"a request nobody checks":    {"[countStale, failOnStatus]", "[countStale]", "failOnStatus"},
		"a path that is none":        {"$.revision", "revision", "revision"},
		"a condition not understood": {"instance.api-1 > 0 and", "instance.api-1 > 0 or", "instance.api-1 > 0 or"},
		"a missing short phase":      {"        - {duration: 1, arrivalRate: 15}\n", "", "phases"},
		"no load":                    {"arrivalRate: 50", "arrivalRate: 0", "spike"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.ReplaceAll(string(blob), change[0], change[1])
			if text == string(blob) {
				t.Fatal("nothing changed: it is no test")
			}
			environment := ""
			if name == "a missing short phase" {
				environment = "short"
			}
			if _, err := parseProfile(strings.NewReader(text), environment); err == nil || !strings.Contains(err.Error(), change[2]) {
				t.Errorf("error %v, want one about %s", err, change[2])
			}
		})
	}
}
