package arrows

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// eachProductionFile visits what users import.
func eachProductionFile(t *testing.T, visit func(path string, files *token.FileSet, file *ast.File)) {
	t.Helper()
	eachGoFile(t, func(path string, src []byte) {
		if !public(filepath.Dir(path)) || strings.HasSuffix(path, "_test.go") {
			return
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, src, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		visit(path, files, file)
	})
}

// scriptRelay passes asynq's own scripts on.
const scriptRelay = "queue/gate.go"

// scriptBuilders are the functions that make scripts of the constants that they are given, by their files.
var scriptBuilders = map[string]string{"cache/ttlscript.go": "newTTLScript", "cache/keyscript.go": "newKeyScript"}

// Scripts that Redis runs are texts of ours: what comes from outside is data, in KEYS and ARGV.
func TestRedisScriptsAreConstant(t *testing.T) {
	scripts := 0
	constants := map[[2]string]bool{} // of a package, by its folder and their names
	eachProductionFile(t, func(path string, _ *token.FileSet, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			if d, ok := n.(*ast.GenDecl); ok && d.Tok == token.CONST {
				for _, spec := range d.Specs {
					for _, name := range spec.(*ast.ValueSpec).Names {
						constants[[2]string{filepath.Dir(path), name.Name}] = true
					}
				}
			}
			return true
		})
	})
	eachProductionFile(t, func(path string, files *token.FileSet, file *ast.File) {
		var constant func(e ast.Expr) bool
		constant = func(e ast.Expr) bool {
			switch e := e.(type) {
			case *ast.BasicLit:
				return true
			case *ast.Ident:
				return constants[[2]string{filepath.Dir(path), e.Name}]
			case *ast.BinaryExpr:
				return constant(e.X) && constant(e.Y)
			case *ast.ParenExpr:
				return constant(e.X)
			}
			return false
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name, of := "", ""
			switch f := call.Fun.(type) {
			case *ast.SelectorExpr:
				name = f.Sel.Name
				if x, ok := f.X.(*ast.Ident); ok {
					of = x.Name
				}
			case *ast.Ident:
				name = f.Name
			}
			if name == "NewScript" && scriptBuilders[path] == "" || slices.Contains(slices.Collect(maps.Values(scriptBuilders)), name) {
				scripts++
				for _, arg := range call.Args {
					if !constant(arg) {
						t.Errorf("%s: a script must be a constant; put data into KEYS and ARGV", files.Position(arg.Pos()))
					}
				}
			}
			// A client's own Eval takes a text; a Script's has one already.
			if (name == "Eval" || name == "EvalRO" || name == "ScriptLoad") && !strings.HasSuffix(strings.ToLower(of), "script") && path != scriptRelay && !constant(call.Args[1]) {
				t.Errorf("%s: run a script made by redis.NewScript", files.Position(call.Pos()))
			}
			return true
		})
	})
	if scripts < 30 {
		t.Errorf("only %d scripts were found", scripts)
	}
}

// clients are the files that send requests to URLs, or dial. Where to comes from the program's options, never from a request.
var clients = map[string]bool{
	"admin/console.go":              true, // asks its own handler
	"metrics/webhook.go":            true,
	"queue/scalehook/http.go":       true,
	"queue/scalehook/kubernetes.go": true,
	"redisclient/options.go":        true,
	"transport.go":                  true, // goes where its caller's requests go
}

// sending is what requests and connections are made with.
var sending = map[string][]string{
	"http":     {"Client", "DefaultClient", "DefaultTransport", "Get", "Head", "NewRequest", "NewRequestWithContext", "Post", "PostForm", "Transport"},
	"httputil": {"ReverseProxy", "NewSingleHostReverseProxy"},
	"net":      {"Dial", "DialTimeout", "Dialer", "DialTCP", "DialUnix"},
	"tls":      {"Client", "Dial", "DialWithDialer", "Dialer"},
}

func TestFewFilesSendRequests(t *testing.T) {
	found := map[string]bool{}
	eachProductionFile(t, func(path string, files *token.FileSet, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if pkg, ok := s.X.(*ast.Ident); ok && slices.Contains(sending[pkg.Name], s.Sel.Name) {
					found[path] = true
					if !clients[path] {
						t.Errorf("%s sends requests: can a caller choose where to?", files.Position(n.Pos()))
					}
				}
			}
			return true
		})
	})
	for path := range clients {
		if !found[path] {
			t.Errorf("%s sends no requests, take it off the list", path)
		}
	}
}

var secretName = regexp.MustCompile(`(?i)(secret|password|bearer|digest)$`)

// Secrets are compared in constant time: == tells by its time how much was right.
func TestSecretsAreNotComparedInHaste(t *testing.T) {
	named := func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.Ident:
			return secretName.MatchString(e.Name)
		case *ast.SelectorExpr:
			return secretName.MatchString(e.Sel.Name)
		}
		return false
	}
	empty := func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.BasicLit:
			return e.Value == `""`
		case *ast.Ident:
			return e.Name == "nil"
		}
		return false
	}
	eachProductionFile(t, func(path string, files *token.FileSet, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BinaryExpr:
				if (n.Op == token.EQL || n.Op == token.NEQ) && (named(n.X) && !empty(n.Y) || named(n.Y) && !empty(n.X)) {
					t.Errorf("%s: compare with crypto/subtle", files.Position(n.Pos()))
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && (f.Sel.Name == "Equal" || f.Sel.Name == "Compare") && len(n.Args) == 2 && (named(n.Args[0]) || named(n.Args[1])) {
					if pkg, ok := f.X.(*ast.Ident); ok && (pkg.Name == "bytes" || pkg.Name == "strings") {
						t.Errorf("%s: compare with crypto/subtle", files.Position(n.Pos()))
					}
				}
			}
			return true
		})
	})
}

// What secrets are made of comes from crypto/rand. Where they are made, nothing else is at hand.
func TestSecretsAreNotMadeOfDice(t *testing.T) {
	eachProductionFile(t, func(path string, files *token.FileSet, file *ast.File) {
		dir := filepath.Dir(path)
		if dir != "session" && dir != "admin" && path != "signer.go" {
			return
		}
		for _, spec := range file.Imports {
			if strings.HasPrefix(spec.Path.Value, `"math/rand`) {
				t.Errorf("%s: what this makes must not be guessed, take crypto/rand", files.Position(spec.Pos()))
			}
		}
	})
}
