package dbsplitbench

import (
	"context"
	"fmt"

	"github.com/scaleaware/scaleaware/bench/internal/gobench"
	"github.com/scaleaware/scaleaware/bench/internal/plot"
)

// Curves measures how the routing decision grows with the replicas that there are.
func Curves(ctx context.Context, o *Options) ([]plot.Chart, error) {
	count := "10"
	if o.Quick {
		count = "1"
	}
	figures, err := gobench.Run(ctx, o.Module, "./dbsplit", "^BenchmarkRoute$", "-cpu", "1", "-benchtime", "100ms", "-count", count)
	if err != nil {
		return nil, err
	}
	c := plot.Chart{Name: "curve-route", Title: "Choosing a node for a read", X: "replicas", Y: "ns of CPU"}
	for _, token := range []struct{ name, what string }{{"none", "no token"}, {"token", "token, staleness"}} {
		s := plot.Series{Name: token.what}
		for _, replicas := range []int{2, 4, 8, 16, 32} {
			one, ok := figures[gobench.Key{Name: fmt.Sprintf("Route/replicas=%d/token=%s", replicas, token.name), CPUs: 1}]
			if !ok {
				return nil, fmt.Errorf("no figures of %d replicas", replicas)
			}
			s.Points = append(s.Points, plot.Point{X: float64(replicas), Y: one.CPU.Median})
		}
		c.Series = append(c.Series, s)
	}
	return []plot.Chart{c}, nil
}
