package metrics

import (
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

// replayTable is the key metrics with random thresholds' times, and thresholds for those that have none.
func replayTable(seed uint64) Table {
	table := KeyMetrics()
	if seed == 0 {
		return table
	}
	rnd := rand.New(rand.NewPCG(seed, 11))
	changes := map[string]Override{
		"db_pool_waiters": {Warning: new(2.), Critical: new(8.)},
		"db_size_growth":  {Warning: new(1e9), Critical: new(5e9)},
	}
	for _, m := range table.Rows {
		if m.Alert == "" || m.ID == "api_throughput" || m.ID == "db_size" {
			continue
		}
		o := changes[m.ID]
		o.WarningFor = new(time.Duration(1+rnd.IntN(20)) * 15 * time.Second)
		o.CriticalFor = new(time.Duration(1+rnd.IntN(8)) * 15 * time.Second)
		o.KeepFiringFor = new(time.Duration(rnd.IntN(20)) * 15 * time.Second)
		if m.ID != "api_latency_p95" && m.ID != "api_latency_p99" && m.ID != "job_time" && m.hasEvents() && rnd.IntN(2) == 0 {
			o.MinEvents = new(float64(50 + rnd.IntN(500)))
		}
		if rnd.IntN(2) == 0 {
			clearOf := func(threshold float64, changed *float64) *float64 {
				if changed != nil {
					threshold = *changed
				}
				if m.Op == Below {
					return new(min(.99, threshold*[]float64{1.05, 1.15, 1.3}[rnd.IntN(3)]))
				}
				return new(threshold * []float64{.7, .85, .95}[rnd.IntN(3)])
			}
			o.WarningClear, o.CriticalClear = clearOf(m.Warning, o.Warning), clearOf(m.Critical, o.Critical)
		}
		changes[m.ID] = o
	}
	return must(table.Override(changes))
}

// replayState is an alert that is pending or firing.
type replayState struct {
	Labels   map[string]string
	State    string
	ActiveAt int64 // seconds
}

// replay evaluates a scenario as a Capacity does, and returns the alerts at each evaluation.
func (s *scenario) replay(leftOpen bool) [][]replayState {
	w := newWindow(s.table.Rows, s.table.withDefaults().Window, leftOpen)
	a, v := alerts{}, results{}
	var out [][]replayState
	for _, f := range s.frames {
		w.add(f)
		if f.at.Sub(time.Unix(0, 0))%replayEvery != 0 {
			continue
		}
		w.evaluate(v, s.table.Rows, "")
		a.tick(f.at, s.table.Rows, v)
		states := []replayState{}
		for _, alert := range a.list("") {
			states = append(states, replayState{alert.Labels, alert.State, alert.ActiveAt.Unix()})
		}
		out = append(out, states)
	}
	return out
}

// watched are the alerts that Prometheus alone can raise.
func watched() (metrics []string) {
	for _, w := range watches() {
		metrics = append(metrics, w.metric)
	}
	return metrics
}

type replayCount struct{ asserted, pending, firing int }

func (c *replayCount) add(table Table, states [][]replayState) {
	scopes := map[string]int{"queue": 2, "server": 2} // of those that have several
	for _, m := range table.Rows {
		n := len(m.Thresholds())
		if len(m.Scope) == 1 && scopes[m.Scope[0]] > 0 {
			n *= scopes[m.Scope[0]]
		}
		c.asserted += n * len(states)
	}
	for _, at := range states {
		for _, s := range at {
			if s.State == "firing" {
				c.firing++
			} else {
				c.pending++
			}
		}
	}
}

const (
	replaySlots  = 1 + 2*60*6 // two hours
	replayTables = 3
	replayEach   = 4
)

// What TestReplayAgainstPromtool and internal/promreplay have found equal to both Prometheus's is also kept, so that a
// change that breaks it is seen at once, without either.
func TestReplayGolden(t *testing.T) {
	const file = "testdata/replay.golden"
	old := strings.Split(string(must(os.ReadFile(file))), "\n")
	var lines []string
	for i := range replayTables {
		for j := range replayEach {
			t.Run(fmt.Sprint(i, " ", j), func(t *testing.T) {
				s := newScenario(replayTable(uint64(i)), uint64(1000*i+j), replaySlots)
				line := fmt.Sprintf("%d %d %s %s", i, j, digest(s.replay(false)), digest(s.replay(true)))
				lines = append(lines, line)
				if n := len(lines) - 1; !*update && (n >= len(old) || old[n] != line) {
					t.Fatalf("alert states have changed; find out which are right with TestReplayAgainstPromtool: %s", line)
				}
			})
			if t.Failed() {
				return // one is enough, and there are many mutants
			}
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func digest(states [][]replayState) string {
	return fmt.Sprintf("%x", sha256.Sum256(must(json.Marshal(states))))[:16]
}

// TestReplayExport writes scenarios and the states in left-open mode for internal/promreplay, which asks Prometheus 3.
// Without a file to write to it only looks that they are complete.
func TestReplayExport(t *testing.T) {
	type exported struct {
		Rules   string
		Watched []string
		Series  []*replaySeries
		States  [][]replayState
	}
	var list []exported
	var count replayCount
	for i := range replayTables {
		table := replayTable(uint64(i))
		for j := range replayEach {
			s := newScenario(table, uint64(1000*i+j), replaySlots)
			states := s.replay(true)
			count.add(table, states)
			for _, x := range s.series {
				for k, v := range x.Values {
					if math.IsNaN(v.Value) {
						x.Values[k].Value, x.Values[k].None = 0, !v.Stale
					}
				}
			}
			list = append(list, exported{string(table.Rules()), watched(), s.series, states})
		}
	}
	if count.asserted < 100_000 {
		t.Errorf("%d alert states, want 100,000", count.asserted)
	}
	if *replayFile != "" {
		if err := os.WriteFile(*replayFile, must(json.Marshal(map[string]any{"Scenarios": list, "Asserted": count.asserted, "Firing": count.firing})), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

var replayFile = flag.String("replay", "", "write scenarios and states to this file")

// The states of all alerts, evaluated here, are those that Prometheus's own rules have over the same samples: in random
// scenarios with counter resets, gaps, idle spells, series and instances that appear, vanish, restart and come back.
func TestReplayAgainstPromtool(t *testing.T) {
	var count replayCount
	for i := range replayTables {
		table := replayTable(uint64(i))
		dir := t.TempDir()
		rules := filepath.Join(dir, "rules.yml")
		if err := os.WriteFile(rules, table.Rules(), 0o644); err != nil {
			t.Fatal(err)
		}
		suite := promTests{RuleFiles: []string{rules}, Interval: "30s"}
		for j := range replayEach {
			seed := uint64(1000*i + j)
			s := newScenario(table, seed, replaySlots)
			states := s.replay(false)
			count.add(table, states)
			test := &promSeries{Name: fmt.Sprintf("table %d seed %d", i, seed), Interval: "10s"}
			for _, x := range s.series {
				test.Input = append(test.Input, promInput{x.selector(), x.text()})
			}
			for k, at := range states {
				expr := promExpr{Expr: fmt.Sprintf("ALERTS{metric!~%q}", strings.Join(watched(), "|")), At: (time.Duration(k) * replayEvery).String()}
				for _, alert := range at {
					labels := fmt.Sprintf("ALERTS{alertstate=%q", alert.State)
					for _, name := range slices.Sorted(maps.Keys(alert.Labels)) {
						labels += fmt.Sprintf(",%s=%q", name, alert.Labels[name])
					}
					expr.Exp = append(expr.Exp, promSample{labels + "}", 1})
				}
				test.Exprs = append(test.Exprs, expr)
			}
			suite.Tests = append(suite.Tests, test)
		}
		file := filepath.Join(dir, "test.yml")
		if err := os.WriteFile(file, must(yaml.Marshal(suite)), 0o644); err != nil {
			t.Fatal(err)
		}
		promtool(t, "test", "rules", file)
	}
	t.Logf("%d alert states equal to promtool's: %d pending, %d firing", count.asserted, count.pending, count.firing)
	if count.asserted < 100_000 || count.pending < count.asserted/50 || count.firing < count.asserted/20 {
		t.Error("too few alerts were pending or firing for this to mean something")
	}
}
