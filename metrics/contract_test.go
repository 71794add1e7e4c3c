package metrics

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// contract reads the rows from contract.go itself, so that none can be forgotten here.
func contract(t *testing.T) []Series {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "contract.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := func(e ast.Expr) string {
		s, err := strconv.Unquote(e.(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	kinds := map[string]Kind{"Counter": Counter, "Gauge": Gauge, "Histogram": Histogram}
	buckets := map[string][]float64{"httpBuckets": httpBuckets, "dbBuckets": dbBuckets, "jobBuckets": jobBuckets, "redisBuckets": redisBuckets}
	var rows []Series
	ast.Inspect(file, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		if id, ok := lit.Type.(*ast.Ident); !ok || id.Name != "Series" {
			return true
		}
		s := Series{Name: text(lit.Elts[0]), Kind: kinds[lit.Elts[1].(*ast.Ident).Name], Help: text(lit.Elts[4])}
		if labels, ok := lit.Elts[2].(*ast.CompositeLit); ok {
			for _, e := range labels.Elts {
				s.Labels = append(s.Labels, text(e))
			}
		}
		if id, ok := lit.Elts[3].(*ast.Ident); ok {
			s.Buckets = buckets[id.Name]
		}
		rows = append(rows, s)
		return true
	})
	if len(rows) < 20 {
		t.Fatalf("found only %d rows in contract.go", len(rows))
	}
	return rows
}

func TestContractIsLintClean(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for _, s := range contract(t) {
		values := make([]string, len(s.Labels))
		var err error
		switch s.Kind {
		case Counter:
			var c *prometheus.CounterVec
			c, err = NewCounter(reg, s)
			c.WithLabelValues(values...)
		case Gauge:
			var g *prometheus.GaugeVec
			g, err = NewGauge(reg, s)
			g.WithLabelValues(values...)
		case Histogram:
			if !slices.IsSorted(s.Buckets) || len(s.Buckets) == 0 {
				t.Errorf("%s: buckets %v", s.Name, s.Buckets)
			}
			var h *prometheus.HistogramVec
			h, err = NewHistogram(reg, s)
			h.WithLabelValues(values...)
		}
		if err != nil {
			t.Error(err)
		}
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

var (
	selector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})?`)
	duration = regexp.MustCompile(`\[[^]]*\]`)
	byClause = regexp.MustCompile(`by \(([^)]*)\)`)
	word     = regexp.MustCompile(`^(sum|max|by|rate|deriv|or|histogram_quantile)$`)
	matchers = regexp.MustCompile(`([a-zA-Z_]+)(?:=~|!=|=)"([^"]*)"`)
)

// promtool cannot know which series exist: a rule over a misspelt one is valid and silent for ever.
func TestRulesSelectOnlyWhatTheContractHas(t *testing.T) {
	labels := map[string][]string{}
	for _, s := range contract(t) {
		if s.Kind == Histogram {
			labels[s.Name+"_bucket"] = append([]string{"le"}, s.Labels...)
			labels[s.Name+"_count"] = s.Labels
			labels[s.Name+"_sum"] = s.Labels
		} else {
			labels[s.Name] = s.Labels
		}
	}
	selected := 0
	for _, rule := range ruleFile(t).Groups[0].Rules {
		for _, found := range selector.FindAllStringSubmatch(duration.ReplaceAllString(byClause.ReplaceAllString(rule.Expr, "by"), ""), -1) {
			if word.MatchString(found[1]) {
				continue
			}
			known, ok := labels[found[1]]
			if !ok {
				t.Errorf("%s%s selects %s, which is neither in the contract nor recorded before", rule.Record, rule.Alert, found[1])
				continue
			}
			selected++
			for _, m := range matchers.FindAllStringSubmatch(found[2], -1) {
				if !slices.Contains(known, m[1]) {
					t.Errorf("%s%s: %s has no label %s", rule.Record, rule.Alert, found[1], m[1])
				}
			}
			for _, by := range byClause.FindAllStringSubmatch(rule.Expr, -1) {
				for label := range strings.SplitSeq(by[1], ", ") {
					if !slices.Contains(known, label) {
						t.Errorf("%s%s: %s has no label %s", rule.Record, rule.Alert, found[1], label)
					}
				}
			}
		}
		if rule.Record != "" {
			labels[rule.Record] = nil
		}
	}
	if selected < 40 {
		t.Errorf("found only %d selectors in the rules", selected)
	}
}
