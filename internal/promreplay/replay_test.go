package promreplay

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

const (
	slot  = 10 * time.Second
	every = 30 * time.Second
)

type export struct {
	Scenarios        []scenario
	Asserted, Firing int
}

type scenario struct {
	Rules   string
	Watched []string
	Series  []struct {
		Name   string
		Labels map[string]string
		Values []struct {
			Value       float64
			Stale, None bool
		}
	}
	States [][]state
}

type state struct {
	Labels   map[string]string
	State    string
	ActiveAt int64
}

func (s state) String() string {
	text := fmt.Sprintf("%s since %d", s.State, s.ActiveAt)
	for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
		text += " " + name + "=" + s.Labels[name]
	}
	return text
}

// In random scenarios with counter resets, gaps, restarts and vanishing series, each state of each alert, and since when
// it is active, equals that of Prometheus 3's engine over the rules that package metrics renders.
func TestEvaluatorEqualsPrometheus3(t *testing.T) {
	file := filepath.Join(t.TempDir(), "replay.json")
	write := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-run", "^TestReplayExport$", "./metrics", "-replay", file)
	write.Dir = "../.."
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	blob, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var e export
	if err := json.Unmarshal(blob, &e); err != nil {
		t.Fatal(err)
	}
	for i, s := range e.Scenarios {
		if differences := s.differ(t); differences > 0 {
			t.Errorf("scenario %d: %d evaluations differ", i, differences)
		}
	}
	if e.Asserted < 100_000 || e.Firing < e.Asserted/20 {
		t.Errorf("%d states, %d firing: too few for this to mean something", e.Asserted, e.Firing)
	}
	t.Logf("%d alert states equal to Prometheus 3's, %d firing", e.Asserted, e.Firing)
}

func (s *scenario) differ(t *testing.T) (differences int) {
	dir := t.TempDir()
	file := filepath.Join(dir, "rules.yml")
	if err := os.WriteFile(file, []byte(s.Rules), 0o644); err != nil {
		t.Fatal(err)
	}
	options := tsdb.DefaultOptions()
	options.MinBlockDuration = int64(24 * time.Hour / time.Millisecond)
	options.MaxBlockDuration = options.MinBlockDuration
	db, err := tsdb.Open(filepath.Join(dir, "db"), slog.New(slog.DiscardHandler), nil, options, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e7, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: parser.NewParser(parser.Options{})})
	defer func() { _ = engine.Close() }()
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc: rules.EngineQueryFunc(engine, db), AppendableV2: db, Queryable: db, Context: t.Context(),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {}, Logger: slog.New(slog.DiscardHandler),
		Parser: parser.NewParser(parser.Options{}),
	})
	groups, errs := manager.LoadGroups(every, labels.EmptyLabels(), "", nil, false, file)
	if errs != nil {
		t.Fatal(errs)
	}
	for _, g := range groups {
		for _, r := range g.AlertingRules() {
			r.SetRestored(true)
		}
	}
	for at := range len(s.Series[0].Values) {
		now := time.Unix(0, 0).Add(time.Duration(at) * slot)
		s.append(t, db, at, now)
		if now.Sub(time.Unix(0, 0))%every != 0 {
			continue
		}
		var got []string
		for _, g := range groups {
			g.Eval(t.Context(), now)
			for _, r := range g.AlertingRules() {
				for _, a := range r.ActiveAlerts() {
					if slices.Contains(s.Watched, a.Labels.Get("metric")) {
						continue
					}
					got = append(got, state{a.Labels.Map(), a.State.String(), a.ActiveAt.Unix()}.String())
				}
			}
		}
		var want []string
		for _, st := range s.States[int(now.Sub(time.Unix(0, 0))/every)] {
			want = append(want, st.String())
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			differences++
			if differences < 3 {
				t.Errorf("at %v\n  ours: %q\n theirs: %q", now.Sub(time.Unix(0, 0)), without(want, got), without(got, want))
			}
		}
	}
	return differences
}

func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
}

func (s *scenario) append(t *testing.T, db storage.Appendable, at int, now time.Time) {
	appender := db.Appender(t.Context())
	for _, x := range s.Series {
		v := x.Values[at]
		switch {
		case v.None:
			continue
		case v.Stale:
			v.Value = math.Float64frombits(value.StaleNaN)
		}
		l := labels.FromMap(x.Labels)
		l = labels.NewBuilder(l).Set("__name__", x.Name).Labels()
		if _, err := appender.Append(0, l, now.UnixMilli(), v.Value); err != nil {
			t.Fatal(err)
		}
	}
	if err := appender.Commit(); err != nil {
		t.Fatal(err)
	}
}
