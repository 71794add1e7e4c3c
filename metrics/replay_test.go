package metrics

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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

// The states of all alerts, evaluated here, are those that Prometheus's own rules have over the same samples: in random
// scenarios with counter resets, gaps, idle spells, series and instances that appear, vanish, restart and come back.
func TestReplayAgainstPromtool(t *testing.T) {
	const slots = 1 + 2*60*6 // two hours
	tables, each := 3, 4
	if n, err := strconv.Atoi(os.Getenv("SCALEAWARE_REPLAY")); err == nil {
		tables, each = n, 1
	}
	var count replayCount
	for i := range tables {
		table := replayTable(uint64(i))
		dir := t.TempDir()
		rules := filepath.Join(dir, "rules.yml")
		if err := os.WriteFile(rules, table.Rules(), 0o644); err != nil {
			t.Fatal(err)
		}
		suite := promTests{RuleFiles: []string{rules}, Interval: "30s"}
		for j := range each {
			seed := uint64(1000*i + j)
			s := newScenario(table, seed, slots)
			states := s.replay(false)
			count.add(table, states)
			test := &promSeries{Name: fmt.Sprintf("table %d seed %d", i, seed), Interval: "10s"}
			for _, x := range s.series {
				test.Input = append(test.Input, promInput{x.selector(), x.text()})
			}
			for k, at := range states {
				expr := promExpr{Expr: "ALERTS", At: (time.Duration(k) * replayEvery).String()}
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
	if count.pending < count.asserted/50 || count.firing < count.asserted/20 {
		t.Error("too few alerts were pending or firing for this to mean something")
	}
}
