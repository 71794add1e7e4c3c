package metrics

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
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
	for _, s := range Contract() {
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

func TestContractListsEverySeries(t *testing.T) {
	inFile := map[string]bool{}
	for _, s := range contract(t) {
		inFile[s.Name] = true
	}
	for _, s := range slices.Concat(Contract(), foreign()) {
		if !inFile[s.Name] {
			t.Errorf("Contract or foreign lists %s twice, or it is not in contract.go", s.Name)
		}
		inFile[s.Name] = false
	}
	for name, missing := range inFile {
		if missing {
			t.Errorf("neither Contract nor foreign lists %s", name)
		}
	}
}
