package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Report is the outcome of a run.
type Report struct {
	Profile  string             `json:"profile"`
	Target   string             `json:"target"`
	Seconds  float64            `json:"seconds"`
	Latency  []Row              `json:"latency_ms"`
	Counters map[string]float64 `json:"counters"`
	Errors   map[string]int     `json:"errors"`
	Checks   []Result           `json:"checks"`
}

func newReport(t *Tally, e Ensure) (Report, error) {
	checks, err := e.checks()
	if err != nil {
		return Report{}, err
	}
	metrics := t.Metrics()
	r := Report{Latency: t.Rows(), Counters: t.counters, Errors: t.errors}
	for _, check := range checks {
		r.Checks = append(r.Checks, check.judge(metrics))
	}
	return r, nil
}

// Failed are the checks that did not hold.
func (r Report) Failed() (failed []string) {
	for _, result := range r.Checks {
		if !result.OK {
			failed = append(failed, result.Check)
		}
	}
	return failed
}

// String is for people.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s against %s: %.0f s, %.0f virtual users, %.1f requests/s\n\n", r.Profile, r.Target, r.Seconds,
		r.Counters["vusers.created"], r.Counters["http.requests"]/r.Seconds)
	fmt.Fprintf(&b, "%-12s %9s %9s %9s %9s %9s  ms\n", "request", "count", "p50", "p95", "p99", "max")
	for _, row := range r.Latency {
		fmt.Fprintf(&b, "%-12s %9d %9.1f %9.1f %9.1f %9.1f\n", row.Name, row.Requests, row.P50, row.P95, row.P99, row.Max)
	}
	b.WriteByte('\n')
	for _, name := range slices.Sorted(maps.Keys(r.Counters)) {
		fmt.Fprintf(&b, "%-24s %.0f\n", name, r.Counters[name])
	}
	for _, text := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(&b, "error: %s, %d times\n", text, r.Errors[text])
	}
	b.WriteByte('\n')
	for _, result := range r.Checks {
		word := "ok  "
		if !result.OK {
			word = "FAIL"
		}
		fmt.Fprintf(&b, "%s %s (%s)\n", word, result.Check, result.Found)
	}
	return b.String()
}

// Save writes the report as JSON.
func (r Report) Save(path string) error {
	blob, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(blob, '\n'), 0o644)
}
