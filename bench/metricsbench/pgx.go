package metricsbench

import (
	"context"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/metrics/pgxmetrics"
)

const pgxNote = "Start and end of one query, called as pgx calls them. otelpgx: metrics to a manual reader, traces to a tracer that does nothing."

func (b bench) pgx(ctx context.Context) ([]report.Row, error) {
	m, err := pgxmetrics.New(prometheus.NewRegistry(), nil)
	if err != nil {
		return nil, err
	}
	provider := metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))
	defer func() { _ = provider.Shutdown(context.WithoutCancel(ctx)) }()
	data := pgx.TraceQueryStartData{SQL: "-- name: GetLead :one\nselect * from leads where id = $1"}
	query := func(name string, t pgx.QueryTracer) pairs.Contender {
		return pairs.Contender{Name: name, Op: func(ctx context.Context) error {
			t.TraceQueryEnd(t.TraceQueryStart(ctx, nil, data), nil, pgx.TraceQueryEndData{})
			return nil
		}}
	}
	r, err := b.run(ctx, query("pgxmetrics", m.Tracer("primary")),
		query("otelpgx", otelpgx.NewTracer(otelpgx.WithMeterProvider(provider), otelpgx.WithTracerProvider(noop.NewTracerProvider()))))
	if err != nil {
		return nil, err
	}
	return []report.Row{compare("query: pgxmetrics, peer otelpgx", r[0], r[1], .4, 2)}, nil
}
