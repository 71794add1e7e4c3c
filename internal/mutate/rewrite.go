package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"path/filepath"
	"strings"
)

// mutant is one way to break a file.
type mutant struct {
	at           token.Position
	right, wrong string
}

func (m mutant) String() string {
	return fmt.Sprintf("%s:%d: %s → %s", filepath.Base(m.at.Filename), m.at.Line, m.right, m.wrong)
}

var (
	compared = map[token.Token]token.Token{
		token.GTR: token.GEQ, token.GEQ: token.GTR, token.LSS: token.LEQ, token.LEQ: token.LSS,
		token.EQL: token.NEQ, token.NEQ: token.EQL, token.LAND: token.LOR, token.LOR: token.LAND,
	}
	computed = map[token.Token]token.Token{token.ADD: token.SUB, token.SUB: token.ADD, token.MUL: token.QUO}
	assigned = map[token.Token]token.Token{token.ADD_ASSIGN: token.SUB, token.SUB_ASSIGN: token.ADD, token.MUL_ASSIGN: token.QUO}
	plain    = map[token.Token]token.Token{token.ADD_ASSIGN: token.ADD, token.SUB_ASSIGN: token.SUB, token.MUL_ASSIGN: token.MUL}
)

// rewrite returns a file's text with all its mutants in it, numbered from first.
func rewrite(path string, first int) (text, pkg string, mutants []mutant, err error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, 0)
	if err != nil {
		return "", "", nil, err
	}
	add := func(n ast.Node, right, wrong string) string {
		mutants = append(mutants, mutant{set.Position(n.Pos()), right, wrong})
		return fmt.Sprint(first + len(mutants) - 1)
	}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Body != nil {
			r := &rewriter{add: add}
			r.block(f.Body)
		}
	}
	var out bytes.Buffer
	if err := printer.Fprint(&out, set, file); err != nil {
		return "", "", nil, err
	}
	return out.String(), file.Name.Name, mutants, nil
}

type rewriter struct {
	add func(n ast.Node, right, wrong string) string
}

func show(n ast.Node) string {
	var b bytes.Buffer
	_ = printer.Fprint(&b, token.NewFileSet(), n)
	return strings.Join(strings.Fields(b.String()), " ")
}

func call(name, id string, args ...ast.Expr) ast.Expr {
	return &ast.CallExpr{Fun: ast.NewIdent(name), Args: append([]ast.Expr{&ast.BasicLit{Kind: token.STRING, Value: `"` + id + `"`}}, args...)}
}

func lazily(e ast.Expr) ast.Expr {
	return &ast.FuncLit{
		Type: &ast.FuncType{Params: &ast.FieldList{}, Results: &ast.FieldList{List: []*ast.Field{{Type: ast.NewIdent("bool")}}}},
		Body: &ast.BlockStmt{List: []ast.Stmt{&ast.ReturnStmt{Results: []ast.Expr{e}}}},
	}
}

func (r *rewriter) block(b *ast.BlockStmt) {
	if b != nil {
		b.List = r.list(b.List)
	}
}

func (r *rewriter) list(in []ast.Stmt) (out []ast.Stmt) {
	for _, s := range in {
		out = append(out, r.stmt(s))
	}
	return out
}

// stmt mutates within a statement, and leaves out the whole where that compiles.
func (r *rewriter) stmt(s ast.Stmt) ast.Stmt {
	switch s := s.(type) {
	case *ast.BlockStmt:
		r.block(s)
	case *ast.IfStmt:
		if s.Init != nil {
			s.Init = r.within(s.Init)
		}
		s.Cond = r.expr(s.Cond)
		r.block(s.Body)
		if s.Else != nil {
			s.Else = r.stmt(s.Else)
		}
	case *ast.ForStmt:
		s.Cond = r.expr(s.Cond)
		r.block(s.Body)
	case *ast.RangeStmt:
		r.block(s.Body)
	case *ast.SwitchStmt:
		for _, c := range s.Body.List {
			clause := c.(*ast.CaseClause)
			if s.Tag == nil {
				for i := range clause.List {
					clause.List[i] = r.expr(clause.List[i])
				}
			}
			clause.Body = r.list(clause.Body)
		}
	case *ast.ReturnStmt:
		for i := range s.Results {
			s.Results[i] = r.expr(s.Results[i])
		}
	case *ast.ExprStmt:
		return r.without(s, show(s))
	case *ast.AssignStmt:
		before := show(s)
		out := r.within(s)
		if s.Tok == token.ASSIGN {
			return r.without(out, before)
		}
		return out
	}
	return s
}

func (r *rewriter) without(s ast.Stmt, text string) ast.Stmt {
	id := r.add(s, text, "nothing")
	return &ast.IfStmt{
		Cond: call("mutated", id, ast.NewIdent("true"), ast.NewIdent("false")),
		Body: &ast.BlockStmt{List: []ast.Stmt{s}},
	}
}

func (r *rewriter) within(s ast.Stmt) ast.Stmt {
	a, ok := s.(*ast.AssignStmt)
	if !ok {
		return s
	}
	for i := range a.Rhs {
		a.Rhs[i] = r.expr(a.Rhs[i])
	}
	if wrong, ok := assigned[a.Tok]; ok {
		right := plain[a.Tok]
		id := r.add(a, a.Tok.String(), wrong.String()+"=")
		a.Rhs[0] = call("mutated", id,
			&ast.BinaryExpr{X: a.Lhs[0], Op: right, Y: &ast.ParenExpr{X: a.Rhs[0]}},
			&ast.BinaryExpr{X: a.Lhs[0], Op: wrong, Y: &ast.ParenExpr{X: a.Rhs[0]}})
		a.Tok = token.ASSIGN
	}
	return a
}

func (r *rewriter) expr(e ast.Expr) ast.Expr {
	switch e := e.(type) {
	case *ast.ParenExpr:
		e.X = r.expr(e.X)
	case *ast.CallExpr:
		for i := range e.Args {
			e.Args[i] = r.expr(e.Args[i])
		}
	case *ast.UnaryExpr:
		if e.Op == token.NOT {
			right, wrong := show(e), show(e.X)
			x := r.expr(e.X)
			return call("mutated", r.add(e, right, wrong), ast.Expr(&ast.UnaryExpr{Op: token.NOT, X: x}), ast.Expr(&ast.UnaryExpr{Op: token.NOT, X: &ast.UnaryExpr{Op: token.NOT, X: x}}))
		}
	case *ast.BinaryExpr:
		before := show(e)
		x, y := r.expr(e.X), r.expr(e.Y)
		if wrong, ok := compared[e.Op]; ok {
			id := r.add(e, before, wrong.String())
			return call("mutatedBool", id, lazily(&ast.BinaryExpr{X: x, Op: e.Op, Y: y}), lazily(&ast.BinaryExpr{X: x, Op: wrong, Y: y}))
		}
		if wrong, ok := computed[e.Op]; ok && !text(e.X) && !text(e.Y) {
			id := r.add(e, before, wrong.String())
			return call("mutated", id, &ast.BinaryExpr{X: &ast.ParenExpr{X: x}, Op: e.Op, Y: &ast.ParenExpr{X: y}}, &ast.BinaryExpr{X: &ast.ParenExpr{X: x}, Op: wrong, Y: &ast.ParenExpr{X: y}})
		}
		e.X, e.Y = x, y
	}
	return e
}

// text says whether e is a text, or a sum with one in it.
func text(e ast.Expr) bool {
	if sum, ok := e.(*ast.BinaryExpr); ok {
		return text(sum.X) || text(sum.Y)
	}
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind == token.STRING
}
