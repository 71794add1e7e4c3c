package otelmetrics

import (
	"context"
	"encoding/hex"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// NewProducer exports what gatherer holds through the reader that it is given to, with metric.WithProducer.
func NewProducer(gatherer prometheus.Gatherer) metric.Producer {
	return producer{bridge.NewMetricProducer(bridge.WithGatherer(gatherer))}
}

// producer adds to the bridge what it leaves out.
type producer struct{ metric.Producer }

// Produce implements metric.Producer.
func (p producer) Produce(ctx context.Context) ([]metricdata.ScopeMetrics, error) {
	scopes, err := p.Producer.Produce(ctx)
	for _, scope := range scopes {
		for i := range scope.Metrics {
			m := &scope.Metrics[i]
			m.Unit = unit(m.Name)
			switch data := m.Data.(type) {
			case metricdata.Histogram[float64]:
				for _, point := range data.DataPoints {
					decode(point.Exemplars)
				}
			case metricdata.Sum[float64]:
				for _, point := range data.DataPoints {
					decode(point.Exemplars)
				}
			}
		}
	}
	return scopes, err
}

// unit is what the name ends in, as UCUM writes it.
func unit(name string) string {
	name = strings.TrimSuffix(name, "_total")
	switch {
	case strings.HasSuffix(name, "_seconds"):
		return "s"
	case strings.HasSuffix(name, "_bytes"):
		return "By"
	}
	return "" // of things counted, the name says what
}

// decode makes the 16 bytes of a trace id of its 32 digits: the bridge takes the label's text for the bytes.
func decode(exemplars []metricdata.Exemplar[float64]) {
	for i := range exemplars {
		if id, err := hex.DecodeString(string(exemplars[i].TraceID)); err == nil && len(id) == 16 {
			exemplars[i].TraceID = id
		}
	}
}
