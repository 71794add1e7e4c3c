package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	} {
		if err := run(args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}
