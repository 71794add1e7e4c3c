package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/internal/localserver"
	"github.com/scaleaware/scaleaware/metrics"
)

func TestRunPrintsTheRules(t *testing.T) {
	var out bytes.Buffer
	if err := run(nil, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), metrics.Rules()) {
		t.Errorf("%.300s", out.String())
	}
}

func TestRunWritesAllOfOneTable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "deploy")
	thresholds := filepath.Join(t.TempDir(), "thresholds.json")
	if err := os.WriteFile(thresholds, []byte(`{"api_latency_p95": {"warning": 0.25, "critical": 0.6}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"-o", dir, "-thresholds", thresholds}
	if err := run(args, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"scaleaware.rules.yml": "p95_5m > 0.25", "scaleaware.dashboard.json": `"value": 0.25`, "metrics.md": "0.2, 0.25, 0.3, 0.5, 0.6, 0.75",
	} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(content), want) {
			t.Errorf("%s lacks %q: %v", name, want, err)
		}
	}
	before, err := os.Stat(filepath.Join(dir, "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	if err := run(args, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(filepath.Join(dir, "metrics.md")); err != nil || !os.SameFile(before, after) {
		t.Errorf("a file that stays the same was written again: %v", err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 3 {
		t.Errorf("%d files, want 3", len(files))
	}
}

func TestRunReportsMistakes(t *testing.T) {
	thresholds := filepath.Join(t.TempDir(), "thresholds.json")
	if err := os.WriteFile(thresholds, []byte(`{"nothing": {}, "queue_depth": {"warning": 9000}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"no such key metric":             {"-thresholds", thresholds},
		"must be above warning 9000":     {"-thresholds", thresholds},
		"no such file":                   {"-thresholds", thresholds + "x"},
		`"deploy" is no flag`:            {"deploy"},
		"not defined":                    {"-x"},
		"thresholds.json: not a directo": {"-o", thresholds},
		"must be above 0":                {"-window", "0s"},
		"-interval -1s must":             {"-interval", "-1s"},
		"forgets a record after 5 min":   {"-interval", "5m", "-window", "1h"},
		"shorter than two Intervals":     {"-window", "50s"},
		"no time below a millisecond":    {"-window", "1m0.0001s"},
	} {
		if err := run(args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}

// The times are the same in all that is written, and Prometheus takes them: evictions end, and two minutes later nothing
// is left of them. In five it would.
func TestRunWithOtherTimes(t *testing.T) {
	dir := t.TempDir()
	if err := run([]string{"-o", dir, "-window", "2m", "-interval", "15s"}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"scaleaware.rules.yml": "interval: 15s", "scaleaware.dashboard.json": "scaleaware:http_request_duration_seconds:p95_2m", "metrics.md": "are of the last 2 min",
	} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(content), want) {
			t.Errorf("%s lacks %q: %v", name, want, err)
		}
		for _, other := range []string{"rate5m", "p95_5m", "[5m]", "avg5m"} {
			if strings.Contains(string(content), other) {
				t.Errorf("%s has %s", name, other)
			}
		}
	}
	test := `rule_files: [scaleaware.rules.yml]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series: [{series: 'cache_evicted_keys_total{server="x"}', values: '0+900x40 36000x20'}]
    promql_expr_test:
      - {expr: 'scaleaware:cache_evictions:rate2m', eval_time: 10m, exp_samples: [{labels: 'scaleaware:cache_evictions:rate2m{server="x"}', value: 60}]}
      - {expr: 'scaleaware:cache_evictions:rate2m', eval_time: 12m30s, exp_samples: [{labels: 'scaleaware:cache_evictions:rate2m{server="x"}', value: 0}]}
      - {expr: 'count(ALERTS{metric="cache_evictions",alertstate="firing"})', eval_time: 10m, exp_samples: [{labels: '{}', value: 2}]}
      - {expr: 'ALERTS{metric="cache_evictions"}', eval_time: 12m30s}
`
	promtool(t, dir, test)
}

// A pool's connections are there under OpenTelemetry's names as well, a pool of theirs for each role of ours.
func TestRunWithOTelNames(t *testing.T) {
	dir := t.TempDir()
	if err := run([]string{"-o", dir, "-otel-names"}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	promtool(t, dir, `rule_files: [scaleaware.rules.yml]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - {series: 'db_pool_acquired_connections{pool="leads",role="replica"}', values: '3x10'}
      - {series: 'db_pool_max_connections{pool="leads",role="replica"}', values: '8x10'}
    promql_expr_test:
      - expr: db_client_connection_count{db_client_connection_state="used"}
        eval_time: 2m
        exp_samples: [{labels: 'db_client_connection_count{db_client_connection_pool_name="leads/replica",db_client_connection_state="used",pool="leads",role="replica"}', value: 3}]
      - expr: db_client_connection_max
        eval_time: 2m
        exp_samples: [{labels: 'db_client_connection_max{db_client_connection_pool_name="leads/replica",pool="leads",role="replica"}', value: 8}]
`)
}

// promtool checks the rules in dir, and tests them.
func promtool(t *testing.T, dir, test string) {
	t.Helper()
	path, env, err := localserver.Find("promtool")
	if errors.Is(err, localserver.ErrNotInstalled) && os.Getenv("SCALEAWARE_REQUIRE_SERVERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "test.yml"), []byte(test), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "rules", "--lint=all", "scaleaware.rules.yml"}, {"test", "rules", "test.yml"}} {
		cmd := exec.CommandContext(t.Context(), path, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
