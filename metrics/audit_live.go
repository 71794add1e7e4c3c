package metrics

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// presence is which series this process has, compared with what the table needs. Lacking some is no mistake: a worker
// serves no HTTP.
type presence struct {
	table []KeyMetric
	seen  map[string]bool
	wrong map[string]error // by histogram, once it has been seen
}

func newPresence(table []KeyMetric, gatherer prometheus.Gatherer) *presence {
	p := &presence{table: table, seen: map[string]bool{}, wrong: map[string]error{}}
	registry, ok := gatherer.(prometheus.Collector)
	if !ok {
		return p
	}
	// What is registered and has no children yet is described and not gathered.
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		registry.Describe(descs)
	}()
	for d := range descs {
		_, text, _ := strings.Cut(d.String(), `fqName: "`) // a Desc tells its name in no other way
		name, _, _ := strings.Cut(text, `"`)
		p.seen[name] = true
	}
	return p
}

// look takes what was gathered into account. The error names histograms that were made with other buckets than the
// table's, so that their thresholds are no boundaries.
func (p *presence) look(families []*dto.MetricFamily) error {
	for _, f := range families {
		p.seen[f.GetName()] = true
		if _, known := p.wrong[f.GetName()]; known || f.GetType() != dto.MetricType_HISTOGRAM {
			continue
		}
		for _, m := range p.table {
			if m.Series.Name == f.GetName() && m.Series.Kind == Histogram {
				p.wrong[f.GetName()] = m.compareBuckets(f.GetMetric()[0].GetHistogram())
			}
		}
	}
	errs := make([]error, 0, len(p.wrong))
	for _, err := range p.wrong {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (m KeyMetric) compareBuckets(h *dto.Histogram) error {
	var bounds []float64
	for _, b := range h.GetBucket() {
		bounds = append(bounds, b.GetUpperBound())
	}
	if slices.Equal(bounds, m.Series.Buckets) {
		return nil
	}
	return fmt.Errorf("metrics: %s has other buckets than the table, its thresholds cannot be told: give the packages Table.Registerer(registry)", m.Series.Name)
}

// missing lists the IDs of the key metrics that nothing here measures.
func (p *presence) missing() []string {
	ids := []string{}
	for _, m := range p.table {
		if !p.seen[m.Series.Name] || m.Of.Name != "" && !p.seen[m.Of.Name] {
			ids = append(ids, m.ID)
		}
	}
	return ids
}
