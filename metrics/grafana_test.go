package metrics

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/metrics/internal/promql"
)

// boardJSON is what Grafana reads of a dashboard, read back strictly enough to see what it would miss.
type boardJSON struct {
	UID           string
	Title         string
	SchemaVersion int
	Templating    struct {
		List []struct {
			Name, Type string
			Query      any
			Datasource *struct{ Type, UID string }
		}
	}
	Panels []boardPanel
}

type boardPanel struct {
	ID         int
	Type       string
	Title      string
	GridPos    struct{ X, Y, W, H int }
	Datasource struct{ Type, UID string }
	Targets    []struct {
		RefID, Expr, LegendFormat string
		Datasource                struct{ Type, UID string }
	}
	FieldConfig struct {
		Defaults struct {
			Unit       string
			Thresholds struct {
				Mode  string
				Steps []struct {
					Color string
					Value *float64
				}
			}
			Custom struct{ ThresholdsStyle struct{ Mode string } }
		}
	}
}

func board(t *testing.T, text []byte) boardJSON {
	t.Helper()
	var b boardJSON
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDashboardIsWhatGrafanaNeeds(t *testing.T) {
	text := Dashboard()
	b := board(t, text)
	if b.UID != "scaleaware" || b.Title == "" || b.SchemaVersion < 36 {
		t.Errorf("uid %q, title %q, schemaVersion %d", b.UID, b.Title, b.SchemaVersion)
	}
	if bytes.Contains(text, []byte("__inputs")) || bytes.Contains(text, []byte("${DS_")) {
		t.Error("a dashboard with __inputs cannot be provisioned")
	}
	if !bytes.Equal(text, Dashboard()) {
		t.Error("two calls made different dashboards")
	}
	var variables []string
	for _, v := range b.Templating.List {
		variables = append(variables, v.Name)
		if v.Type == "query" && v.Datasource.UID != "${datasource}" {
			t.Errorf("variable %s asks %s", v.Name, v.Datasource.UID)
		}
	}
	if !slices.Equal(variables, []string{"datasource", "instance", "pool", "queue"}) {
		t.Errorf("variables %v", variables)
	}
	ids, cells, rows := map[int]bool{}, map[[2]int]string{}, 0
	for _, p := range b.Panels {
		if p.ID == 0 || ids[p.ID] {
			t.Errorf("%s: the id %d is there twice, or 0", p.Title, p.ID)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			t.Errorf("%s is at %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies over %s", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			rows++
			continue
		}
		if p.Type == "timeseries" && p.FieldConfig.Defaults.Unit == "" {
			t.Errorf("%s has no unit", p.Title)
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.RefID == "" || target.Datasource.UID != "${datasource}" || target.Datasource.Type != "prometheus" {
				t.Errorf("%s: target %+v", p.Title, target)
			}
			refs[target.RefID] = true
			if p.Type == "timeseries" && target.LegendFormat == "" {
				t.Errorf("%s: a line without a name", p.Title)
			}
		}
		if len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
	}
	if rows != len(areaOrder) {
		t.Errorf("%d rows, want %d", rows, len(areaOrder))
	}
}

// Each expression in the JSON itself parses, and selects what the contract or the rules have.
func TestDashboardSelectsOnlyWhatExists(t *testing.T) {
	table := KeyMetrics().withDefaults()
	a := newAudit(table)
	for _, r := range table.rules() {
		if labels := a.expression("", r.expr); r.record != "" {
			a.known[r.record] = exported{kind: Gauge, labels: labels}
		}
	}
	shown := map[string]bool{}
	for _, p := range board(t, Dashboard()).Panels {
		for _, target := range p.Targets {
			if _, err := a.read(target.Expr); err != nil {
				t.Errorf("%s: %v", p.Title, err)
				continue
			}
			n, _ := promql.Parse(target.Expr)
			promql.Walk(n, func(s promql.Selector) {
				shown[s.Name] = true
				if !strings.HasPrefix(s.Name, recordPrefix) && s.Name != activeAlerts.Name && !slices.Contains(s.Matchers, promql.Matcher{Label: "instance", Op: "=~", Value: "$instance"}) {
					t.Errorf("%s: %s is not narrowed to the variable instance", p.Title, s.Name)
				}
				if s.Range != "" && s.Range != "$__rate_interval" {
					t.Errorf("%s: a rate over %s, whatever the time range", p.Title, s.Range)
				}
			})
		}
	}
	for _, s := range Contract() {
		if !shown[s.Name] && !shown[s.Name+"_count"] && !shown[s.Name+"_bucket"] {
			t.Errorf("no panel shows %s", s.Name)
		}
	}
}

func TestDashboardDrawsTheThresholds(t *testing.T) {
	table, err := KeyMetrics().Override(map[string]Override{"queue_depth": {Warning: new(70.), Critical: new(90.)}})
	if err != nil {
		t.Fatal(err)
	}
	b := board(t, table.Dashboard())
	for _, m := range table.Rows {
		i := slices.IndexFunc(b.Panels, func(p boardPanel) bool { return p.Title == m.Title })
		if i < 0 {
			t.Errorf("no panel %q", m.Title)
			continue
		}
		defaults := b.Panels[i].FieldConfig.Defaults
		got := defaults.Custom.ThresholdsStyle.Mode
		for _, s := range defaults.Thresholds.Steps {
			got += " " + s.Color
			if s.Value != nil {
				got += fmt.Sprintf(" %g", *s.Value)
			}
		}
		want := "off green"
		switch {
		case m.HasThresholds() && m.Op == Above:
			want = fmt.Sprintf("dashed green orange %g red %g", m.Warning, m.Critical)
		case m.HasThresholds():
			want = fmt.Sprintf("dashed red orange %g green %g", m.Critical, m.Warning)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", m.Title, got, want)
		}
	}
}
