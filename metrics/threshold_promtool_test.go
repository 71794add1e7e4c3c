package metrics

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// scenarios are what happens around each threshold, as timelines for [KeyMetric.play].
func (m KeyMetric) scenarios(t Threshold) map[string]string {
	due := int(t.For / promTick)
	warm := 1 // a counter needs two samples
	switch m.Statistic {
	case RateOfOne, OverPerMinute:
		warm = 10 // it grows to the threshold while the window fills
	case LargestRatio, Largest, Age:
		warm = 0
	}
	warm = max(warm, int(m.minTicks()))
	p := func(n int) string { return strings.Repeat("p", n) }
	fired, half := warm+due+1, warm+due/2
	quiet := strings.Repeat("i", 22)
	if m.gauge() {
		quiet = "S" + strings.Repeat("_", 21) // it goes, and that is silence
		if m.Statistic == Age {
			quiet = strings.Repeat("n", 22)
		}
	}
	return map[string]string{
		"just past":     p(fired + 4),
		"just not past": strings.Repeat("n", fired+20),
		"not for long":  p(fired-1) + quiet,
		"sample lost":   p(half) + "_" + p(fired-half+3),
		"scrape failed": p(half) + "S" + p(fired-half+warm+due),
		"restart":       p(half) + "R" + p(fired-half+3),
		"silence":       p(fired+2) + quiet,
		"comes again":   p(fired+2) + quiet[:2] + p(fired+2),
	}
}

// promTests are a row's: for each threshold and scenario, which alerts fire at every tick.
func (m KeyMetric) promTests() (tests []*promSeries, assertions int) {
	for _, target := range m.Thresholds() {
		for name, timeline := range m.scenarios(target) {
			if strings.Contains(timeline, "S") && m.Statistic == Age {
				continue // an age that is not scraped is no age
			}
			test := &promSeries{Name: fmt.Sprintf("%s %s: %s", m.ID, target.Severity, name), Interval: promTick.String(), Input: m.play(target.Value, timeline)}
			var firing [2][]bool
			for i, t := range m.Thresholds() {
				firing[i] = m.states(t, m.truth(target, t, timeline))
			}
			for tick := range timeline {
				if tick > 0 && name == "comes again" && !m.gauge() {
					break // what the window still holds is the first silence's affair
				}
				expected := []promExpAlert{}
				for i, t := range m.Thresholds() {
					if firing[i][tick] {
						expected = append(expected, m.promAlert(t))
					}
				}
				test.Alerts = append(test.Alerts, promAlert{(time.Duration(tick) * promTick).String(), m.Alert, expected})
				assertions++
			}
			tests = append(tests, test)
		}
		if m.Unless != "" {
			test := &promSeries{Name: m.ID + " muted", Interval: promTick.String(), Input: m.play(target.Value, strings.Repeat("p", 20))}
			other, _ := KeyMetrics().Row(m.Unless)
			test.Input = append(test.Input, promInput{other.Series.Name + `{server="x"}`, "1x20"})
			test.Alerts = append(test.Alerts, promAlert{At: "8m", Name: m.Alert})
			tests = append(tests, test)
		}
	}
	return tests, assertions
}

// rulesFile writes the rules of one row, so that promtool has fewer to evaluate.
func (t Table) rulesFile(tb testing.TB, m KeyMetric) string {
	tb.Helper()
	t.Rows = []KeyMetric{m}
	if other, ok := KeyMetrics().Row(m.Unless); ok {
		t.Rows = append(t.Rows, other)
	}
	path := filepath.Join(tb.TempDir(), m.ID+".rules.yml")
	if err := os.WriteFile(path, t.Rules(), 0o644); err != nil {
		tb.Fatal(err)
	}
	return path
}

// The default table, and one in which each row outlasts its cause and needs events.
func TestPromtoolFiresEveryThreshold(t *testing.T) {
	changes := map[string]Override{}
	for _, m := range KeyMetrics().Rows {
		if !m.HasThresholds() {
			continue
		}
		o := Override{KeepFiringFor: new(90 * time.Second)}
		if perTick := map[Statistic]float64{Quantile: 1000, Share: 10000}[m.Statistic]; perTick > 0 {
			o.MinEvents = new(4.5 * perTick)
		}
		changes[m.ID] = o
	}
	changed, err := KeyMetrics().Override(changes)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"test", "rules"}
	rows, assertions := 0, 0
	for _, table := range []Table{KeyMetrics(), changed} {
		for _, m := range table.Rows {
			if !m.HasThresholds() {
				continue
			}
			tests, n := m.promTests()
			rows, assertions = rows+1, assertions+n
			args = append(args, writePromTests(t, tests, table.rulesFile(t, m)))
		}
	}
	if rows != 2*14 {
		t.Errorf("%d rows with thresholds were tested, want 14 of each table", rows)
	}
	promtool(t, args...)
	t.Logf("%d times the alerts of a tick were compared", assertions)
}
