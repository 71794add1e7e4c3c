package promql

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

var (
	aggregations = []string{"sum", "min", "max", "avg", "count", "group", "topk", "bottomk", "quantile", "stddev"}
	precedence   = map[string]int{
		"or": 1, "and": 2, "unless": 2, "==": 3, "!=": 3, ">": 3, "<": 3, ">=": 3, "<=": 3,
		"+": 4, "-": 4, "*": 5, "/": 5, "%": 5, "^": 6,
	}
)

// Parse reads an expression.
func Parse(s string) (Node, error) {
	tokens, err := lex(s)
	if err != nil {
		return nil, fmt.Errorf("promql: %s: %w", s, err)
	}
	p := &parser{tokens: tokens}
	n := p.expression(0)
	if p.err == nil && p.peek().kind != end {
		p.fail("an operator, not %q", p.peek().text)
	}
	if p.err != nil {
		return nil, fmt.Errorf("promql: %s: %w", s, p.err)
	}
	return n, nil
}

type parser struct {
	tokens []token
	depth  int
	err    error // the first; from then on every token is the end
}

func (p *parser) peek() token {
	if p.err != nil {
		return token{}
	}
	return p.tokens[0]
}

func (p *parser) next() token {
	t := p.peek()
	if t.kind != end {
		p.tokens = p.tokens[1:]
	}
	return t
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("want "+format, args...)
	}
}

func (p *parser) take(s string) bool {
	if p.peek().text == s && p.peek().kind != text {
		p.next()
		return true
	}
	return false
}

func (p *parser) want(s string) {
	if !p.take(s) {
		p.fail("%q, not %q", s, p.peek().text)
	}
}

func (p *parser) wantKind(k kind, name string) string {
	if p.peek().kind != k {
		p.fail("%s, not %q", name, p.peek().text)
		return ""
	}
	return p.next().text
}

func (p *parser) expression(least int) Node {
	if p.depth++; p.depth > 100 {
		p.err = errors.New("it is nested too deeply")
	}
	defer func() { p.depth-- }()
	left := p.unary()
	for {
		op := p.peek().text
		level, ok := precedence[op]
		if !ok || p.peek().kind == text || level <= least {
			return left
		}
		p.next()
		b := Binary{Op: op, Left: left, Bool: p.take("bool")}
		if m := p.peek().text; m == "on" || m == "ignoring" {
			b.Match = p.next().text
			b.Labels = p.names()
			if g := p.peek().text; g == "group_left" || g == "group_right" {
				b.Group = p.next().text
				if p.peek().text == "(" && p.isNames() {
					b.Include = p.names()
				}
			}
		}
		if op == "^" {
			level-- // binds to the right
		}
		b.Right = p.expression(level)
		left = b
	}
}

// isNames tells the labels of group_left from an expression in brackets.
func (p *parser) isNames() bool {
	for i, t := range p.tokens[1:] {
		switch {
		case t.text == ")":
			next := p.tokens[i+2]
			return next.kind != end && next.kind != sign || next.text == "("
		case t.kind != word && t.text != ",":
			return false
		}
	}
	return false
}

func (p *parser) unary() Node {
	if p.take("-") {
		return Negative{p.unary()}
	}
	bare := p.peek().kind == word // Prometheus takes no range after brackets
	n := p.primary()
	for p.peek().text == "[" && p.peek().kind == sign {
		p.next()
		length := p.wantKind(duration, "a duration")
		if p.take(":") {
			step := ""
			if p.peek().kind == duration {
				step = p.next().text
			}
			n = Subquery{n, length, step}
		} else if s, ok := n.(Selector); ok && bare && s.Range == "" {
			s.Range = length
			n = s
		} else {
			p.fail("a selector before a range")
		}
		p.want("]")
	}
	if p.take("offset") {
		p.wantKind(duration, "a duration")
	}
	return n
}

func (p *parser) primary() Node {
	t := p.next()
	switch t.kind {
	case number:
		v, err := strconv.ParseFloat(t.text, 64)
		if err != nil {
			p.fail("a number, not %q", t.text)
		}
		return Number(v)
	case text:
		return String(p.unquote(t.text))
	case word:
		switch {
		case slices.Contains(aggregations, t.text):
			return p.aggregate(t.text)
		case p.peek().text == "(":
			return Call{t.text, p.arguments()}
		}
		return Selector{Name: t.text, Matchers: p.matchers()}
	case sign:
		if t.text == "(" {
			n := p.expression(0)
			p.want(")")
			return n
		}
	}
	p.fail("an expression, not %q", t.text)
	return nil
}

func (p *parser) aggregate(op string) Node {
	a := Aggregate{Op: op}
	grouping := func() {
		if w := p.peek().text; w == "by" || w == "without" {
			a.Without = p.next().text == "without"
			a.By = p.names()
		}
	}
	grouping()
	a.Args = p.arguments()
	grouping()
	return a
}

func (p *parser) arguments() (args []Node) {
	p.want("(")
	for !p.take(")") && p.err == nil {
		args = append(args, p.expression(0))
		if p.peek().text != ")" {
			p.want(",")
		}
	}
	return args
}

func (p *parser) names() (names []string) {
	p.want("(")
	for !p.take(")") && p.err == nil {
		names = append(names, p.wantKind(word, "a label"))
		if p.peek().text != ")" {
			p.want(",")
		}
	}
	return names
}

func (p *parser) matchers() (list []Matcher) {
	if !p.take("{") {
		return nil
	}
	for !p.take("}") && p.err == nil {
		m := Matcher{Label: p.wantKind(word, "a label"), Op: p.next().text}
		if !slices.Contains([]string{"=", "!=", "=~", "!~"}, m.Op) {
			p.fail("=, !=, =~ or !~, not %q", m.Op)
		}
		m.Value = p.unquote(p.wantKind(text, "a text in quotes"))
		list = append(list, m)
		if p.peek().text != "}" {
			p.want(",")
		}
	}
	return list
}

func (p *parser) unquote(s string) string {
	if p.err != nil {
		return ""
	}
	if s[0] == '\'' {
		return s[1 : len(s)-1]
	}
	v, err := strconv.Unquote(s)
	if err != nil {
		p.fail("a text in quotes, not %s", s)
	}
	return v
}
