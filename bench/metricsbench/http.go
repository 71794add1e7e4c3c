package metricsbench

import (
	"context"
	"net/http"
	"net/http/httptest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/metrics"
)

const httpNote = "Added to a request that a `http.ServeMux` with one pattern serves, round by round. promhttp: InFlight, Counter and Duration, " +
	"with the pattern as a label. otelhttp: metrics to a manual reader, traces to a tracer that does nothing."

// silent keeps nothing of a response.
type silent struct{ header http.Header }

func (w *silent) Header() http.Header         { return w.header }
func (w *silent) Write(p []byte) (int, error) { return len(p), nil }
func (w *silent) WriteHeader(int)             {}

func mux() *http.ServeMux {
	m := http.NewServeMux()
	m.HandleFunc("GET /leads/{id}", func(http.ResponseWriter, *http.Request) {})
	return m
}

func request(name string, h http.Handler) pairs.Contender {
	r := httptest.NewRequest("GET", "/leads/7", nil)
	w := &silent{http.Header{}}
	return pairs.Contender{Name: name, Op: func(context.Context) error {
		r.Pattern = ""
		h.ServeHTTP(w, r)
		return nil
	}}
}

func prom(next http.Handler) http.Handler {
	reg := prometheus.NewRegistry()
	active := prometheus.NewGauge(prometheus.GaugeOpts{Name: "active", Help: "x"})
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total", Help: "x"}, []string{"code", "method", "route"})
	durations := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "duration_seconds", Help: "x", Buckets: metrics.HTTPRequestDuration.Buckets}, []string{"code", "method", "route"})
	reg.MustRegister(active, requests, durations)
	route := promhttp.WithLabelFromRequest("route", func(r *http.Request) string { return r.Pattern })
	return promhttp.InstrumentHandlerInFlight(active, promhttp.InstrumentHandlerCounter(requests, promhttp.InstrumentHandlerDuration(durations, next, route), route))
}

func (b bench) http(ctx context.Context) ([]report.Row, error) {
	ours, err := metrics.NewHTTP(prometheus.NewRegistry(), nil)
	if err != nil {
		return nil, err
	}
	traced, err := metrics.NewHTTP(prometheus.NewRegistry(), &metrics.HTTPOptions{Trace: func(context.Context) string { return "4bf92f3577b34da6a3ce929d0e0e4736" }})
	if err != nil {
		return nil, err
	}
	provider := metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))
	defer func() { _ = provider.Shutdown(context.WithoutCancel(ctx)) }()
	otel := otelhttp.NewHandler(mux(), "bench", otelhttp.WithMeterProvider(provider), otelhttp.WithTracerProvider(noop.NewTracerProvider()))
	r, err := b.run(ctx, request("bare", mux()), request("metrics", ours.Middleware(mux())), request("promhttp", prom(mux())),
		request("otelhttp", otel), request("behind middleware", ours.Middleware(http.HandlerFunc(metrics.Routes(mux()).ServeHTTP))), request("with exemplars", traced.Middleware(mux())))
	if err != nil {
		return nil, err
	}
	own, promhttp := added(r[1], r[0]), added(r[2], r[0])
	return []report.Row{
		compare("metrics, peer promhttp's three wrappers", own, promhttp, .35, 0),
		compare("metrics, peer otelhttp", own, added(r[3], r[0]), .10, 0),
		{What: "metrics around other middleware, with Routes, peer promhttp's", Peer: figures(promhttp), Ours: figures(added(r[4], r[0])), Ratio: report.Ratio(pairs.Ratio(added(r[4], r[0]), promhttp))},
		{What: "metrics with an exemplar for each request, peer promhttp's without", Peer: figures(promhttp), Ours: figures(added(r[5], r[0])), Ratio: report.Ratio(pairs.Ratio(added(r[5], r[0]), promhttp))},
	}, nil
}
