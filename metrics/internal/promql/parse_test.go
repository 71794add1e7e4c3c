package promql

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	a, b, c := Selector{Name: "a"}, Selector{Name: "b"}, Selector{Name: "c"}
	for text, want := range map[string]Node{
		"a":                         a,
		"-1.5e3":                    Negative{Number(1500)},
		`"x\"y"`:                    String(`x"y`),
		`a:b_5m{x="1",y!~'\d+'}`:    Selector{"a:b_5m", []Matcher{{"x", "=", "1"}, {"y", "!~", `\d+`}}, ""},
		"a{}[1h30m] offset 5m":      Selector{"a", nil, "1h30m"},
		"rate(a[$__rate_interval])": Call{"rate", []Node{Selector{"a", nil, "$__rate_interval"}}},
		"time() - a":                Binary{Op: "-", Left: Call{"time", nil}, Right: a},
		"a + b * c":                 Binary{Op: "+", Left: a, Right: Binary{Op: "*", Left: b, Right: c}},
		"a - b - c":                 Binary{Op: "-", Left: Binary{Op: "-", Left: a, Right: b}, Right: c},
		"a ^ b ^ c":                 Binary{Op: "^", Left: a, Right: Binary{Op: "^", Left: b, Right: c}},
		"(a + b) > bool 2":          Binary{Op: ">", Bool: true, Left: Binary{Op: "+", Left: a, Right: b}, Right: Number(2)},
		"a or b and c unless a":     Binary{Op: "or", Left: a, Right: Binary{Op: "unless", Left: Binary{Op: "and", Left: b, Right: c}, Right: a}},
		"sum by (x, y) (a)":         Aggregate{Op: "sum", By: []string{"x", "y"}, Args: []Node{a}},
		"topk(3, a) without (le)":   Aggregate{Op: "topk", By: []string{"le"}, Without: true, Args: []Node{Number(3), a}},
		"a / on (x) group_left (y) b": Binary{Op: "/", Left: a, Right: b, Match: "on", Labels: []string{"x"}, Group: "group_left",
			Include: []string{"y"}},
		"a * ignoring (x) group_right (b + c)": Binary{Op: "*", Left: a, Right: Binary{Op: "+", Left: b, Right: c}, Match: "ignoring",
			Labels: []string{"x"}, Group: "group_right"},
		"(max(a))[6h:5m]": Subquery{Aggregate{Op: "max", Args: []Node{a}}, "6h", "5m"},
		"a[1d:]":          Subquery{a, "1d", ""},
	} {
		got, err := Parse(text)
		if err != nil {
			t.Error(err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"", "a b", "a +", "(a", "a)", "a{", "a{x}", "a{x=1}", `a{x="1"`, `a{x>"1"}`, "a[5]", "a[5m", "(a)[5m]", "a[5m][5m]", "sum(a", "sum by x (a)", "rate(,)",
		`"a`, "a # b", "a ! b", "1x", "a offset b", `a{x="\q"}`,
	} {
		if n, err := Parse(text); err == nil {
			t.Errorf("%q was read as %#v", text, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`60 * (sum(rate(a_count{x="y"}[5m])) - on (z) group_left () deriv((max by (d) (a))[6h:5m]))`)
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := Parse(s); (n == nil) == (err == nil) {
			t.Errorf("%q: %v, %v", s, n, err)
		}
	})
}
