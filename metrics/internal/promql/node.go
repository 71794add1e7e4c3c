package promql

// Node is one of the types below.
type Node any

// Number is a literal.
type Number float64

// String is a literal, without its quotes.
type String string

// Selector selects series.
type Selector struct {
	Name     string
	Matchers []Matcher
	// Range is the duration in brackets, or empty.
	Range string
}

// Matcher is one condition of a selector.
type Matcher struct{ Label, Op, Value string }

// Call is a function applied to arguments.
type Call struct {
	Func string
	Args []Node
}

// Aggregate is such as sum by (queue) (…).
type Aggregate struct {
	Op string
	// By are the labels that stay, or with Without those that go.
	By      []string
	Without bool
	// Args are a parameter, where Op takes one, and the vector.
	Args []Node
}

// Binary is an operator between two expressions.
type Binary struct {
	Op          string
	Left, Right Node
	// Bool is set for a comparison that returns 0 or 1.
	Bool bool
	// Match is on, ignoring or empty, Labels what follows it.
	Match  string
	Labels []string
	// Group is group_left, group_right or empty, Include what follows it.
	Group   string
	Include []string
}

// Negative is a sign before an expression.
type Negative struct{ Of Node }

// Subquery is an expression evaluated over a range.
type Subquery struct {
	Of          Node
	Range, Step string
}

// Walk calls visit for every selector in n.
func Walk(n Node, visit func(Selector)) {
	switch n := n.(type) {
	case Selector:
		visit(n)
	case Negative:
		Walk(n.Of, visit)
	case Subquery:
		Walk(n.Of, visit)
	case Binary:
		Walk(n.Left, visit)
		Walk(n.Right, visit)
	case Call:
		for _, a := range n.Args {
			Walk(a, visit)
		}
	case Aggregate:
		for _, a := range n.Args {
			Walk(a, visit)
		}
	}
}
