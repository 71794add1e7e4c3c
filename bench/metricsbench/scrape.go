package metricsbench

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/metrics/pgxmetrics"
	"github.com/scaleaware/scaleaware/metrics/redismetrics"
)

const scrapeNote = "`metrics.Handler` into a writer that keeps nothing. 17,000 series are 1,000 children of a histogram. With the servers stopped, a Redis client and a pool are " +
	"instrumented whose servers do not exist: the scrape asks nobody."

func scrape(name string, reg *prometheus.Registry, encoding string) pairs.Contender {
	h := metrics.Handler(reg)
	r := httptest.NewRequest("GET", "/metrics", nil)
	if encoding != "" {
		r.Header.Set("Accept-Encoding", encoding)
	}
	return pairs.Contender{Name: name, Op: func(context.Context) error {
		h.ServeHTTP(&silent{http.Header{}}, r)
		return nil
	}}
}

// within is the row of a scrape with a limit of its own; what it allocates has none.
func within(what string, r pairs.Result, limit time.Duration) report.Row {
	return report.Row{What: what, Goal: "≤ " + report.Since(limit), Ours: figures(r), Met: report.MedianAtMost(r.Time(), float64(limit))}
}

func (b bench) scrape(ctx context.Context) ([]report.Row, error) {
	large := prometheus.NewRegistry()
	durations, err := metrics.NewHistogram(large, metrics.HTTPRequestDuration)
	if err != nil {
		return nil, err
	}
	for i := range 1000 { // 15 buckets, count and sum
		durations.WithLabelValues(fmt.Sprintf("/api/v1/route-%d/{id}", i), "GET", "2xx").Observe(float64(i) / 1000)
	}
	stopped := prometheus.NewRegistry()
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1})
	defer rdb.Close()
	if err := redismetrics.Attach(rdb, &redismetrics.Options{Registerer: stopped}); err != nil {
		return nil, err
	}
	m, err := pgxmetrics.New(stopped, nil)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig("postgres://nobody@127.0.0.1:1/none?connect_timeout=1")
	if err != nil {
		return nil, err
	}
	m.Attach(config, "primary")
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if rdb.Ping(ctx).Err() == nil || pool.Ping(ctx) == nil {
		return nil, fmt.Errorf("a server answers on port 1")
	}
	r, err := b.run(ctx, scrape("text", large, ""), scrape("gzip", large, "gzip"), scrape("stopped", stopped, ""))
	if err != nil {
		return nil, err
	}
	return []report.Row{
		within("17,000 series", r[0], 50*time.Millisecond),
		within("17,000 series, gzip", r[1], 50*time.Millisecond),
		within("Redis and PostgreSQL stopped", r[2], 10*time.Millisecond),
	}, nil
}
