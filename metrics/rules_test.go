package metrics

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/scaleaware/scaleaware/internal/localserver"
	"gopkg.in/yaml.v3"
)

var update = flag.Bool("update", false, "write the golden files")

const golden = "testdata/rules.golden.yml"

func TestGolden(t *testing.T) {
	for path, got := range map[string][]byte{golden: Rules(), "testdata/dashboard.golden.json": Dashboard(), "../docs/metrics.md": KeyMetrics().Markdown()} {
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is not what the table makes; if that is intended, make golden\n%s", path, diff)
		}
	}
}

// promtool runs the real one.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, env, err := localserver.Find("promtool")
	if errors.Is(err, localserver.ErrNotInstalled) && os.Getenv("SCALEAWARE_REQUIRE_SERVERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%.8000s", strings.Join(args, " "), err, out)
	}
}

func TestPromtoolChecksRules(t *testing.T) {
	promtool(t, "check", "rules", "--lint=all", golden, "testdata/runbook.rules.yml")
}

// What follows is promtool's test format.
type (
	promTests struct {
		RuleFiles []string      `yaml:"rule_files"`
		Interval  string        `yaml:"evaluation_interval"`
		Tests     []*promSeries `yaml:"tests"`
	}
	promSeries struct {
		Name     string      `yaml:"name"`
		Interval string      `yaml:"interval"`
		Input    []promInput `yaml:"input_series"`
		Alerts   []promAlert `yaml:"alert_rule_test,omitempty"`
		Exprs    []promExpr  `yaml:"promql_expr_test,omitempty"`
	}
	promInput struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	}
	promAlert struct {
		At   string         `yaml:"eval_time"`
		Name string         `yaml:"alertname"`
		Exp  []promExpAlert `yaml:"exp_alerts"`
	}
	promExpAlert struct {
		Labels      map[string]string `yaml:"exp_labels"`
		Annotations map[string]string `yaml:"exp_annotations"`
	}
	promExpr struct {
		Expr string       `yaml:"expr"`
		At   string       `yaml:"eval_time"`
		Exp  []promSample `yaml:"exp_samples"`
	}
	promSample struct {
		Labels string  `yaml:"labels"`
		Value  float64 `yaml:"value"`
	}
)

func runPromTests(t *testing.T, tests []*promSeries, ruleFiles ...string) {
	t.Helper()
	promtool(t, "test", "rules", writePromTests(t, tests, ruleFiles...))
}

func writePromTests(t *testing.T, tests []*promSeries, ruleFiles ...string) string {
	t.Helper()
	suite := promTests{Interval: "30s", Tests: tests}
	for _, f := range ruleFiles {
		path, err := filepath.Abs(f)
		if err != nil {
			t.Fatal(err)
		}
		suite.RuleFiles = append(suite.RuleFiles, path)
	}
	text, err := yaml.Marshal(suite)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules_test.yml")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func (m KeyMetric) promAlert(t Threshold) promExpAlert {
	labels := map[string]string{"severity": t.Severity.String(), "metric": m.ID}
	for _, name := range m.Scope {
		labels[name] = "x"
	}
	summary := m.summary(t, func(string) string { return "x" })
	return promExpAlert{labels, map[string]string{"summary": summary, "runbook": m.Step}}
}

func TestPromtoolIsSilentWithoutTraffic(t *testing.T) {
	idle := &promSeries{Name: "counters stand still", Interval: "30s", Exprs: []promExpr{{Expr: "ALERTS", At: "25m"}}}
	for _, m := range KeyMetrics().Rows {
		if m.gauge() || !m.HasThresholds() {
			continue
		}
		for _, f := range m.flows(m.Critical, true) {
			idle.Input = append(idle.Input, promInput{f.series, "500x60"})
		}
	}
	// A Redis without maxmemory has no series of it, or 0.
	idle.Input = append(idle.Input, promInput{CacheMemoryUsed.Name + `{server="x"}`, "1000x60"},
		promInput{CacheMemoryUsed.Name + `{server="y"}`, "1000x60"}, promInput{CacheMemoryMax.Name + `{server="y"}`, "0x60"})
	idle.Input = append(idle.Input, promInput{SamplerSuccess.Name + `{package="x",task="x"}`, "0+30x60"})
	nothing := &promSeries{Name: "nothing is exported", Interval: "30s", Exprs: []promExpr{{Expr: `ALERTS{metric!="` + watchAll + `"}`, At: "25m"}}}
	runPromTests(t, []*promSeries{idle, nothing}, golden)
}

// Fewer comparisons in the window than the row asks for raise no alert, whatever they found and however many hits could
// not be compared; when the rest is there, it fires. A cache of which nothing was compared has no ratio, one in which all
// was the same has 0.
func TestPromtoolIsSilentAboutFewComparisons(t *testing.T) {
	m := metric(t, "cache_stale_ratio")
	record := KeyMetrics().withDefaults().record(m)
	series := func(outcome, values string) promInput {
		return promInput{m.Series.Name + `{cache="x",outcome="` + outcome + `"}`, values}
	}
	few := &promSeries{Name: "few", Interval: "30s", Exprs: []promExpr{{Expr: `ALERTS{metric="` + m.ID + `"}`, At: "25m"}},
		Input: []promInput{series("stale", "0+9x60"), series("same", "0x60"), series("skipped", "0+1000x60"), series("failed", "0+1000x60")}}
	enough := &promSeries{Name: "enough", Interval: "30s",
		Input:  []promInput{series("stale", "0+9x60"), series("changed", "0+2x60"), series("skipped", "0+1000x60")},
		Alerts: []promAlert{{"25m", m.Alert, []promExpAlert{m.promAlert(m.threshold(Warning)), m.promAlert(m.threshold(Critical))}}},
		Exprs:  []promExpr{{Expr: record, At: "25m", Exp: []promSample{{record + `{cache="x"}`, 9. / 11}}}}}
	none := &promSeries{Name: "none", Interval: "30s", Exprs: []promExpr{{Expr: record, At: "25m"}, {Expr: m.Compat, At: "25m"}},
		Input: []promInput{series("skipped", "0+1000x60"), series("failed", "0+1000x60"), series("stale", "7x60")}}
	same := &promSeries{Name: "same", Interval: "30s", Input: []promInput{series("same", "0+100x60"), series("skipped", "0+1000x60")},
		Exprs: []promExpr{{Expr: m.Compat, At: "25m", Exp: []promSample{{m.Compat + `{cache="x"}`, 0}}}, {Expr: `ALERTS{metric="` + m.ID + `"}`, At: "25m"}}}
	runPromTests(t, []*promSeries{few, enough, none, same}, golden)
}

// The runbook's own rules, verbatim, on the records that bear its names.
func TestPromtoolFiresTheRunbooksRules(t *testing.T) {
	s := &promSeries{Name: "runbook", Interval: "30s"}
	for _, id := range []string{"api_latency_p95", "cache_hit_rate", "db_pool_utilization"} {
		m := metric(t, id)
		s.Input = append(s.Input, m.play(m.Critical, strings.Repeat("p", 60))...)
	}
	for alert, want := range map[string]struct {
		severity, summary string
		labels            map[string]string
	}{
		"HighAPILatency":              {"warning", "High API latency detected", nil},
		"CriticalAPILatency":          {"critical", "Critical API latency detected", nil},
		"LowCacheHitRate":             {"warning", "Cache hit rate below target", nil},
		"HighDatabaseConnectionUsage": {"warning", "Database connection pool usage high", map[string]string{"pool": "x"}},
	} {
		labels := map[string]string{"severity": want.severity}
		for k, v := range want.labels {
			labels[k] = v
		}
		s.Alerts = append(s.Alerts, promAlert{"20m", alert, []promExpAlert{{labels, map[string]string{"summary": want.summary}}}},
			promAlert{At: "1m", Name: alert})
	}
	quiet := &promSeries{Name: "runbook, all well", Interval: "30s", Exprs: []promExpr{{Expr: `ALERTS{metric!="` + watchAll + `"}`, At: "25m"}}}
	for _, id := range []string{"api_latency_p95", "cache_hit_rate", "db_pool_utilization"} {
		m := metric(t, id)
		in := m.play(m.Warning, strings.Repeat("n", 60))
		quiet.Input = append(quiet.Input, in...)
	}
	runPromTests(t, []*promSeries{s, quiet}, golden, "testdata/runbook.rules.yml")
}
