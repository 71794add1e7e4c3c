package arrows

import (
	"bytes"
	"flag"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/printer"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the files of api/ anew")

// api/ lists what users may call, a file for each package. A line that goes or changes breaks somebody's program.
func TestAPIIsAsListed(t *testing.T) {
	sources := map[string][]*ast.File{}
	files := token.NewFileSet()
	eachGoFile(t, func(path string, src []byte) {
		dir := filepath.ToSlash(filepath.Dir(path))
		if !public(dir) || strings.Contains(dir, "internal") || strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(files, path, src, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if file.Name.Name != "main" {
			sources[dir] = append(sources[dir], file)
		}
	})
	listed := map[string]bool{}
	for dir, parsed := range sources {
		got := exported(t, files, dir, parsed)
		path := filepath.Join("../../api", listName(dir))
		listed[path] = true
		if *update {
			if err := os.WriteFile(path, []byte(strings.Join(got, "")), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("%v: run make golden", err)
			continue
		}
		compare(t, path, slices.Collect(strings.Lines(string(text))), got)
	}
	there, err := filepath.Glob("../../api/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range there {
		if !listed[path] {
			t.Errorf("%s lists a package that is gone: that breaks whoever imports it; if it is meant, say so in CHANGELOG.md and delete the file", path)
		}
	}
}

func compare(t *testing.T, path string, want, got []string) {
	t.Helper()
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("%s: this breaks its callers; if it is meant, say so in CHANGELOG.md and run make golden:\n- %s", path, line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("%s: new or changed; run make golden (one more method of an interface breaks who implements it):\n+ %s", path, line)
		}
	}
}

func listName(dir string) string {
	if dir == "." {
		return "scaleaware.txt"
	}
	return strings.ReplaceAll(dir, "/", "-") + ".txt"
}

// exported prints every exported declaration of a package on a line of its own, sorted.
func exported(t *testing.T, files *token.FileSet, dir string, parsed []*ast.File) []string {
	t.Helper()
	pkg, err := doc.NewFromFiles(files, parsed, dir)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	lines := map[string]bool{}
	values := func(vs []*doc.Value) {
		for _, v := range vs {
			for _, spec := range v.Decl.Specs {
				spec := spec.(*ast.ValueSpec)
				if v.Decl.Tok == token.VAR {
					spec.Values = nil
				}
				lines[line(t, files, v.Decl.Tok.String(), spec)] = true
			}
		}
	}
	funcs := func(fs []*doc.Func) {
		for _, f := range fs {
			f.Decl.Body = nil
			lines[line(t, files, "", f.Decl)] = true
		}
	}
	values(pkg.Consts)
	values(pkg.Vars)
	funcs(pkg.Funcs)
	for _, typ := range pkg.Types {
		for _, spec := range typ.Decl.Specs {
			spec := spec.(*ast.TypeSpec)
			for _, field := range fields(spec) {
				lines[line(t, files, "type "+typ.Name+" has "+names(field), field.Type)] = true
			}
			lines[line(t, files, "type", spec)] = true
		}
		values(typ.Consts)
		values(typ.Vars)
		funcs(typ.Funcs)
		funcs(typ.Methods)
	}
	return slices.Sorted(maps.Keys(lines))
}

// fields takes the fields or methods out of a type, for lines of their own: a new field breaks nobody.
func fields(spec *ast.TypeSpec) []*ast.Field {
	var list *ast.FieldList
	switch typ := spec.Type.(type) {
	case *ast.StructType:
		list = typ.Fields
		typ.Incomplete = false
	case *ast.InterfaceType:
		list = typ.Methods
	default:
		return nil
	}
	taken := list.List
	list.List = nil
	return taken
}

func names(field *ast.Field) string {
	var list []string
	for _, name := range field.Names {
		list = append(list, name.Name)
	}
	return strings.Join(list, ", ")
}

// line prints a declaration without its comments.
func line(t *testing.T, files *token.FileSet, keyword string, node any) string {
	t.Helper()
	ast.Inspect(node.(ast.Node), func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			n.Doc = nil
		case *ast.TypeSpec:
			n.Doc, n.Comment = nil, nil
		case *ast.ValueSpec:
			n.Doc, n.Comment = nil, nil
		case *ast.Field:
			n.Doc, n.Comment = nil, nil
		}
		return true
	})
	var out bytes.Buffer
	if err := printer.Fprint(&out, files, node); err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(keyword+" "+out.String()), " ") + "\n"
}
