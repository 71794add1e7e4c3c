package manifests

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

const (
	deployDir = "../.."       // examples/deploy
	rootDir   = "../../../.." // the repository
)

// programs are where the code of the image is.
var programs = []string{"examples/lead", "examples/leadapi", "examples/leadworker"}

// code is what the manifests are compared with: what the programs really read and serve.
type code struct {
	variables map[string]bool   // of the environment
	defaults  map[string]string // of variables that are times
	checks    []string          // of readiness
}

var variableName = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`)

// readCode finds them in the source: a variable is a constant in capitals that a function is called with, a check is a
// literal with a name and a function.
func readCode(t *testing.T) code {
	t.Helper()
	c := code{variables: map[string]bool{}, defaults: map[string]string{}}
	for _, dir := range programs {
		files, err := filepath.Glob(filepath.Join(rootDir, dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no source in %s: %v", dir, err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool { c.see(n); return true })
		}
	}
	for _, name := range []string{"DATABASE_URL_PRIMARY", "REDIS_URL", "ADMIN_ADDR", "HOST", "PORT", "AUTOSCALE", "DRAIN_TIMEOUT"} {
		if !c.variables[name] {
			t.Fatalf("%s was not found among the variables that the code reads, %v: this test does not see what it should", name, c.variables)
		}
	}
	if !slices.Contains(c.checks, "database") {
		t.Fatalf("database was not found among the checks, %v: this test does not see what it should", c.checks)
	}
	return c
}

func (c *code) see(n ast.Node) {
	switch n := n.(type) {
	case *ast.CallExpr:
		if fun, ok := n.Fun.(*ast.SelectorExpr); ok && fun.Sel.Name != "Getenv" && fun.Sel.Name != "LookupEnv" {
			return // Errorf and the like
		}
		if len(n.Args) == 0 {
			return
		}
		if name := text(n.Args[0]); variableName.MatchString(name) {
			c.variables[name] = true
			if len(n.Args) == 2 {
				c.defaults[name] = seconds(n.Args[1])
			}
		}
	case *ast.RangeStmt: // over a table of variables
		if table, ok := n.X.(*ast.CompositeLit); ok {
			for _, element := range table.Elts {
				if pair, ok := element.(*ast.KeyValueExpr); ok && variableName.MatchString(text(pair.Key)) {
					c.variables[text(pair.Key)] = true
				}
			}
		}
	case *ast.CompositeLit:
		name, ready := "", false
		for _, element := range n.Elts {
			if pair, ok := element.(*ast.KeyValueExpr); ok {
				if key, ok := pair.Key.(*ast.Ident); ok {
					if key.Name == "Name" {
						name = text(pair.Value)
					}
					ready = ready || key.Name == "Ready"
				}
			}
		}
		if name != "" && ready {
			c.checks = append(c.checks, name)
		}
	}
}

// text is the value of a string literal, or empty.
func text(e ast.Expr) string {
	if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
		if s, err := strconv.Unquote(lit.Value); err == nil {
			return s
		}
	}
	return ""
}

// seconds reads "5*time.Second", or is empty.
func seconds(e ast.Expr) string {
	if product, ok := e.(*ast.BinaryExpr); ok && product.Op == token.MUL {
		if lit, ok := product.X.(*ast.BasicLit); ok && lit.Kind == token.INT {
			return lit.Value + "s"
		}
	}
	return ""
}

// managementStop is how long admin.Serve gives requests to end.
const managementStop = 5 * time.Second

// needsToStop is the longest that a process takes to stop, with the environment given.
func (c code) needsToStop(t *testing.T, environment map[string]string) time.Duration {
	t.Helper()
	total := managementStop
	for _, name := range []string{"DRAIN_DELAY", "DRAIN_TIMEOUT"} {
		value := environment[name]
		if value == "" {
			value = c.defaults[name]
		}
		d, err := time.ParseDuration(value)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		total += d
	}
	return total
}

// reads reports a mistake for each name that no program reads. Those of images that are not ours are not asked here.
func (c code) reads(t *testing.T, where string, environment map[string]string) {
	t.Helper()
	for name := range environment {
		if !c.variables[name] {
			t.Errorf("%s sets %s, which no program reads", where, name)
		}
	}
}

// probe reports a mistake unless a path with its query is one that the management listener serves without a token, and
// what it excludes are checks.
func (c code) probe(t *testing.T, where, target string) {
	t.Helper()
	handler, err := admin.New(nil, &admin.Options{Tokens: []admin.Token{{Name: "admin", Role: admin.Operator, Secret: strings.Repeat("s", 40)}}})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	handler.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("%s probes %s, which answers %d", where, target, w.Code)
	}
	for name := range strings.SplitSeq(r.URL.Query().Get("exclude"), ",") {
		if name != "" && !slices.Contains(c.checks, name) {
			t.Errorf("%s excludes the check %q, and there are %v", where, name, c.checks)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
