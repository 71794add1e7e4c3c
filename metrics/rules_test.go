package metrics

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/scaleaware/scaleaware/internal/localserver"
	"gopkg.in/yaml.v3"
)

var update = flag.Bool("update", false, "write the golden files")

const golden = "testdata/rules.golden.yml"

type rulesYAML struct {
	Groups []struct {
		Rules []struct{ Record, Alert, Expr string }
	}
}

func ruleFile(t *testing.T) rulesYAML {
	t.Helper()
	var file rulesYAML
	if err := yaml.Unmarshal(Rules(), &file); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestRulesGolden(t *testing.T) {
	if *update {
		if err := os.WriteFile(golden, Rules(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(Rules())); diff != "" {
		t.Errorf("the rules are not as in %s; if that is intended, go test ./metrics -update\n%s", golden, diff)
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
	promtool(t, "test", "rules", file)
}

// input makes series whose metric is just past, or just not past, the threshold from their beginning, at one sample
// each 30 s; from says when the value is there for the first time.
func (m KeyMetric) input(threshold float64, past bool) (in []promInput, from time.Duration) {
	factor := .9
	if past == (m.Op == Above) {
		factor = 1.1
	}
	add := func(s Series, suffix, selected, extra string, step float64) {
		labels := []string{extra}
		for _, name := range s.Labels {
			value := "x"
			if name == m.Label {
				value = selected
			}
			labels = append(labels, fmt.Sprintf("%s=%q", name, value))
		}
		in = append(in, promInput{s.Name + suffix + "{" + strings.Join(labels, ",") + "}", fmt.Sprintf("0+%gx60", step)})
	}
	const a, b = `instance="a"`, `instance="b"`
	switch m.Statistic {
	case Quantile:
		within := m.Param*1000 - 1
		if !past {
			within = m.Param*1000 + 1
		}
		for _, bound := range m.Series.Buckets {
			n := 0.0
			if bound == threshold {
				n = within
			} else if bound > threshold {
				n = 1000
			}
			add(m.Series, "_bucket", "x", a+`,le="`+strconv.FormatFloat(bound, 'f', -1, 64)+`"`, n)
		}
		add(m.Series, "_bucket", "x", a+`,le="+Inf"`, 1000)
		return in, 30 * time.Second
	case Share:
		suffix := ""
		if m.Series.Kind == Histogram {
			suffix = "_count"
		}
		part, rest := 10000*threshold*factor, 10000-10000*threshold*factor
		if m.Not {
			part, rest = rest, part
		}
		add(m.Series, suffix, m.Value, a, part/4)
		add(m.Series, suffix, m.Value, b, part-part/4)
		add(m.Series, suffix, "other", a, rest)
		return in, 30 * time.Second
	case OverPerMinute:
		add(m.Series, "_bucket", "x", a+`,le="`+strconv.FormatFloat(m.Param, 'f', -1, 64)+`"`, 7)
		add(m.Series, "_count", "x", a, 7+threshold*factor/2)
		return in, 5 * time.Minute // counters begin at 0, and a rate is over the whole 5 m
	case RateOfOne:
		add(m.Series, "", "x", a, 30*threshold*factor)
		add(m.Series, "", "x", b, 30*threshold*factor) // the same server, seen by two instances
		return in, 5 * time.Minute
	case Largest:
		add(m.Series, "", m.Value, a, 0)
		add(m.Series, "", m.Value, b, 0)
		add(m.Series, "", "other", b, 0)
		for i, v := range []float64{threshold, threshold, 100 * threshold} {
			if past && i < 2 {
				v++
			}
			in[i].Values = fmt.Sprintf("%gx60", v)
		}
	case Age: // the test begins at the Unix time 0
		last := -threshold
		if past {
			last--
		}
		add(m.Series, "", "x", a, 0)
		add(m.Series, "", "x", b, 0) // another instance's sampler is older
		in[0].Values = fmt.Sprintf("%g+30x60", last)
		in[1].Values = fmt.Sprintf("%g+30x60", last-1000)
	case LargestRatio:
		busy := 100 * threshold
		if past {
			busy++
		}
		for i, v := range []float64{busy, 5} {
			instance := []string{a, b}[i]
			add(m.Series, "", "x", instance, 0)
			in[len(in)-1].Values = fmt.Sprintf("%gx60", v)
			add(m.Of, "", "x", instance, 0)
			in[len(in)-1].Values = "100x60"
		}
	}
	return in, 0
}

func (m KeyMetric) promAlert(t Threshold) promExpAlert {
	labels := map[string]string{"severity": t.Severity.String(), "metric": m.ID}
	for _, name := range m.Scope {
		labels[name] = "x"
	}
	summary := m.summary(t, func(string) string { return "x" })
	return promExpAlert{labels, map[string]string{"summary": summary, "runbook": m.Step}}
}

func TestPromtoolFiresEveryThreshold(t *testing.T) {
	var tests []*promSeries
	for _, m := range KeyMetrics().Rows {
		for _, threshold := range m.Thresholds() {
			name := m.ID + " " + threshold.Severity.String()
			in, from := m.input(threshold.Value, true)
			fires := from + threshold.For
			var before []promExpAlert
			if from == 5*time.Minute && threshold.Severity == Critical {
				before = append(before, m.promAlert(m.Thresholds()[0])) // the rate grew past it minutes earlier
			}
			firing := append(before[:len(before):len(before)], m.promAlert(threshold))
			if warning := m.Thresholds()[0]; len(before) == 0 && threshold.Severity == Critical && warning.For <= threshold.For {
				firing = append(firing, m.promAlert(warning))
			}
			pending := fmt.Sprintf("ALERTS{alertname=%q, alertstate=\"pending\"", m.Alert)
			for k, v := range m.promAlert(threshold).Labels {
				pending += fmt.Sprintf(", %s=%q", k, v)
			}
			query := fmt.Sprintf("ALERTS{alertname=%q, severity=%q}", m.Alert, threshold.Severity)
			tests = append(tests, &promSeries{
				Name: name + " past", Interval: "30s", Input: in,
				Alerts: []promAlert{
					{(fires - 30*time.Second).String(), m.Alert, before},
					{fires.String(), m.Alert, firing},
				},
				Exprs: []promExpr{{query, (fires - 30*time.Second).String(), []promSample{{pending + "}", 1}}}},
			})
			in, _ = m.input(threshold.Value, false)
			tests = append(tests, &promSeries{
				Name: name + " not past", Interval: "30s", Input: in,
				Exprs: []promExpr{{Expr: query, At: "25m"}},
			})
		}
	}
	if len(tests) != 52 {
		t.Errorf("%d tests, want 4 for each of 13 metrics", len(tests))
	}
	runPromTests(t, tests, golden)
}

func TestPromtoolIsSilentWithoutTraffic(t *testing.T) {
	idle := &promSeries{Name: "counters stand still", Interval: "30s", Exprs: []promExpr{{Expr: "ALERTS", At: "25m"}}}
	for _, m := range KeyMetrics().Rows {
		if m.gauge() || !m.HasThresholds() {
			continue
		}
		in, _ := m.input(m.Critical, true)
		for _, s := range in {
			s.Values = "500x60"
			idle.Input = append(idle.Input, s)
		}
	}
	// A Redis without maxmemory has no series of it, or 0.
	idle.Input = append(idle.Input, promInput{CacheMemoryUsed.Name + `{server="x"}`, "1000x60"},
		promInput{CacheMemoryUsed.Name + `{server="y"}`, "1000x60"}, promInput{CacheMemoryMax.Name + `{server="y"}`, "0x60"})
	nothing := &promSeries{Name: "nothing is exported", Interval: "30s", Exprs: []promExpr{{Expr: "ALERTS", At: "25m"}}}
	runPromTests(t, []*promSeries{idle, nothing}, golden)
}

// The runbook's own rules, verbatim, on the records that bear its names.
func TestPromtoolFiresTheRunbooksRules(t *testing.T) {
	s := &promSeries{Name: "runbook", Interval: "30s"}
	for _, id := range []string{"api_latency_p95", "cache_hit_rate", "db_pool_utilization"} {
		m := metric(t, id)
		in, _ := m.input(m.Critical, true)
		s.Input = append(s.Input, in...)
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
	quiet := &promSeries{Name: "runbook, all well", Interval: "30s", Exprs: []promExpr{{Expr: "ALERTS", At: "25m"}}}
	for _, id := range []string{"api_latency_p95", "cache_hit_rate", "db_pool_utilization"} {
		m := metric(t, id)
		in, _ := m.input(m.Warning, false)
		if id == "api_latency_p95" { // all at 200 ms is more than p99 bears
			for i := range in {
				in[i].Values = strings.Replace(in[i].Values, "951", "1000", 1)
			}
		}
		quiet.Input = append(quiet.Input, in...)
	}
	runPromTests(t, []*promSeries{s, quiet}, golden, "testdata/runbook.rules.yml")
}
