package metrics

import (
	"fmt"
	"maps"
	"slices"

	"github.com/scaleaware/scaleaware/metrics/internal/promql"
)

// value is what is known of an expression's result before anything is measured.
type value struct {
	vector bool // else a number or a text
	ranged bool
	kind   Kind // of the samples
	labels map[string]bool
}

func (a *audit) read(text string) (value, error) {
	n, err := promql.Parse(text)
	if err != nil {
		return value{}, err
	}
	v, err := a.of(n)
	if err == nil && v.ranged {
		err = fmt.Errorf("a range is no result")
	}
	return v, err
}

func (a *audit) of(n promql.Node) (value, error) {
	switch n := n.(type) {
	case promql.Number, promql.String:
		return value{kind: Gauge}, nil
	case promql.Selector:
		return a.selector(n)
	case promql.Negative:
		v, err := a.of(n.Of)
		v.kind = Gauge
		return v, err
	case promql.Subquery:
		v, err := a.of(n.Of)
		if err == nil && (!v.vector || v.ranged) {
			err = fmt.Errorf("a subquery needs a vector")
		}
		v.ranged = true
		return v, err
	case promql.Call:
		return a.call(n)
	case promql.Aggregate:
		return a.aggregate(n)
	case promql.Binary:
		return a.binary(n)
	}
	panic(fmt.Sprintf("metrics: %T is no node", n))
}

func (a *audit) selector(n promql.Selector) (value, error) {
	s, ok := a.known[n.Name]
	if !ok {
		return value{}, fmt.Errorf("nobody exports %s: take a series of the contract, or a record of a rule before", n.Name)
	}
	for _, m := range n.Matchers {
		if !slices.Contains(s.labels, m.Label) {
			return value{}, fmt.Errorf("%s has no label %s", n.Name, m.Label)
		}
		if m.Label != "le" {
			continue
		}
		bounds, err := boundaries(m.Value)
		if err != nil {
			return value{}, err
		}
		for _, b := range bounds {
			if i := slices.Index(s.bounds, b); i < 0 || i == len(s.bounds)-1 {
				return value{}, fmt.Errorf("%g must be a bucket boundary of %s with a finite one above", b, n.Name)
			}
		}
	}
	return value{vector: true, ranged: n.Range != "", kind: s.kind, labels: set(s.labels)}, nil
}

// functions that are used, by what they need and give.
var functions = map[string]struct {
	arg    int  // which argument is the vector; -1 is none
	ranged bool // it needs a range
	needs  Kind // of its samples, where ranged
	any    bool // whatever the kind
	loses  bool // all labels
}{
	"rate": {ranged: true, needs: Counter}, "increase": {ranged: true, needs: Counter}, "irate": {ranged: true, needs: Counter},
	"deriv": {ranged: true, needs: Gauge}, "delta": {ranged: true, needs: Gauge}, "predict_linear": {ranged: true, needs: Gauge},
	"last_over_time": {ranged: true, any: true}, "max_over_time": {ranged: true, needs: Gauge}, "avg_over_time": {ranged: true, needs: Gauge},
	"absent": {loses: true}, "vector": {arg: -1}, "time": {arg: -1}, "clamp_min": {}, "clamp_max": {}, "histogram_quantile": {arg: 1}, "label_join": {},
}

func (a *audit) call(n promql.Call) (value, error) {
	f, ok := functions[n.Func]
	if !ok {
		return value{}, fmt.Errorf("the function %s is not known here", n.Func)
	}
	if f.arg < 0 {
		return value{vector: n.Func == "vector", kind: Gauge, labels: map[string]bool{}}, nil
	}
	if len(n.Args) <= f.arg {
		return value{}, fmt.Errorf("%s needs an argument", n.Func)
	}
	v, err := a.of(n.Args[f.arg])
	switch {
	case err != nil:
		return v, err
	case !v.vector || v.ranged != f.ranged:
		return v, fmt.Errorf("%s gets what it cannot take", n.Func)
	case f.ranged && !f.any && v.kind != f.needs:
		return v, fmt.Errorf("%s of a gauge or a counter: it is for the other kind", n.Func)
	case f.loses:
		v.labels = map[string]bool{}
	}
	if n.Func == "histogram_quantile" {
		if !v.labels["le"] {
			return v, fmt.Errorf("histogram_quantile needs the label le")
		}
		v.labels = maps.Clone(v.labels)
		delete(v.labels, "le")
	}
	if n.Func == "label_join" {
		if v.labels, err = joined(v.labels, n.Args[1:]); err != nil {
			return v, err
		}
	}
	v.ranged = false
	if n.Func != "last_over_time" {
		v.kind = Gauge
	}
	return v, nil
}

// joined adds the label that label_join makes of others: args are its name, the separator, and their names.
func joined(labels map[string]bool, args []promql.Node) (map[string]bool, error) {
	if len(args) < 3 {
		return nil, fmt.Errorf("label_join needs a label, a separator, and labels to join")
	}
	for i, n := range args {
		name, ok := n.(promql.String)
		if !ok || i >= 2 && !labels[string(name)] {
			return nil, fmt.Errorf("label_join of %v, which is not there", n)
		}
	}
	labels = maps.Clone(labels)
	labels[string(args[0].(promql.String))] = true
	return labels, nil
}

func (a *audit) aggregate(n promql.Aggregate) (value, error) {
	if len(n.Args) == 0 {
		return value{}, fmt.Errorf("%s needs an argument", n.Op)
	}
	v, err := a.of(n.Args[len(n.Args)-1])
	if err != nil {
		return v, err
	}
	if !v.vector || v.ranged {
		return v, fmt.Errorf("%s needs a vector", n.Op)
	}
	for _, l := range n.By {
		if !v.labels[l] {
			return v, fmt.Errorf("%s by %s, which is not there", n.Op, l)
		}
	}
	kept := set(n.By)
	if n.Without || (n.Op == "topk" || n.Op == "bottomk") && len(n.By) == 0 {
		kept = maps.Clone(v.labels)
		for _, l := range n.By {
			delete(kept, l)
		}
	}
	if n.Op == "topk" || n.Op == "bottomk" {
		kept = v.labels
	}
	return value{vector: true, kind: Gauge, labels: kept}, nil
}

func (a *audit) binary(n promql.Binary) (value, error) {
	l, err := a.of(n.Left)
	if err != nil {
		return l, err
	}
	r, err := a.of(n.Right)
	if err != nil {
		return r, err
	}
	if l.ranged || r.ranged {
		return l, fmt.Errorf("%s between ranges", n.Op)
	}
	out := value{vector: l.vector || r.vector, kind: Gauge, labels: l.labels}
	if !l.vector {
		out.labels = r.labels
	}
	if !l.vector || !r.vector {
		return out, nil
	}
	matched := func(v value) map[string]bool {
		m := maps.Clone(v.labels)
		for _, x := range n.Labels {
			delete(m, x)
		}
		return m
	}
	switch n.Match {
	case "on":
		for _, x := range n.Labels {
			if !l.labels[x] || !r.labels[x] {
				return out, fmt.Errorf("%s on %s, which one side has not", n.Op, x)
			}
		}
	default: // with ignoring fewer labels
		if left, right := matched(l), matched(r); !maps.Equal(left, right) {
			return out, fmt.Errorf("the labels of both sides of %s never match: %v and %v", n.Op,
				slices.Sorted(maps.Keys(left)), slices.Sorted(maps.Keys(right)))
		}
	}
	switch {
	case n.Op == "and" || n.Op == "or" || n.Op == "unless":
	case n.Group == "group_right":
		out.labels = r.labels
	case n.Group == "" && n.Match == "on":
		out.labels = set(n.Labels)
	case n.Group == "" && n.Match == "ignoring":
		out.labels = matched(l)
	}
	if len(n.Include) > 0 {
		out.labels = maps.Clone(out.labels)
		for _, x := range n.Include {
			out.labels[x] = true
		}
	}
	return out, nil
}

func set(list []string) map[string]bool {
	m := map[string]bool{}
	for _, x := range list {
		m[x] = true
	}
	return m
}
