package arrows

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const longestFile = 500

func TestFilesAreShort(t *testing.T) {
	eachGoFile(t, func(path string, src []byte) {
		if lines := strings.Count(string(src), "\n"); lines > longestFile {
			t.Errorf("%s has %d lines, more than %d: split it by noun", path, lines, longestFile)
		}
	})
}

func TestPublicPackagesAreDocumented(t *testing.T) {
	documented := map[string]bool{}
	eachGoFile(t, func(path string, src []byte) {
		dir := filepath.Dir(path)
		if !public(dir) || strings.HasSuffix(path, "_test.go") {
			return
		}
		documented[dir] = documented[dir] || filepath.Base(path) == "doc.go"
		file, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		for _, decl := range file.Decls {
			for _, name := range undocumented(decl) {
				t.Errorf("%s: exported %s has no comment", path, name)
			}
		}
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no doc.go", dir)
		}
	}
}

// TestPublicPackagesHaveExamples wants one Example for each package that users import.
func TestPublicPackagesHaveExamples(t *testing.T) {
	shown := map[string]bool{}
	eachGoFile(t, func(path string, src []byte) {
		dir := filepath.Dir(path)
		if !public(dir) || strings.Contains(dir+"/", "/internal/") || strings.Contains(dir+"/", "/cmd/") || dir == "readonly/storetest" {
			return // programs, and a suite for tests
		}
		shown[dir] = shown[dir] || strings.HasSuffix(path, "_test.go") && strings.Contains(string(src), "\nfunc Example")
	})
	for dir, ok := range shown {
		if !ok {
			t.Errorf("%s has no Example", dir)
		}
	}
}

// undocumented returns the exported names of a declaration that no comment explains.
func undocumented(decl ast.Decl) []string {
	var names []string
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !wellKnown[d.Name.Name] {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					names = append(names, s.Name.Name)
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						names = append(names, n.Name)
					}
				}
			}
		}
	}
	return names
}

// wellKnown methods say by their name alone what they do.
var wellKnown = map[string]bool{"Error": true, "Unwrap": true, "String": true}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.IndexListExpr:
			typ = t.X
		case *ast.Ident:
			return t.IsExported()
		default:
			return false
		}
	}
}

// public packages are those that users import.
func public(dir string) bool {
	first, _, _ := strings.Cut(filepath.ToSlash(dir), "/")
	return first != "internal" && first != "examples" && first != "bench" && first != "tools"
}

func eachGoFile(t *testing.T, visit func(path string, src []byte)) {
	t.Helper()
	house := os.DirFS("../..")
	err := fs.WalkDir(house, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != "." && strings.HasPrefix(entry.Name(), ".") {
			return fs.SkipDir
		}
		if filepath.Ext(path) == ".go" {
			src, err := fs.ReadFile(house, path)
			if err != nil {
				return err
			}
			visit(path, src)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
