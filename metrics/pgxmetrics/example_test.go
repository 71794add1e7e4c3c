package pgxmetrics_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/metrics/pgxmetrics"
)

// A pool of one's own, without dbsplit. Run takes its averages.
func Example() {
	registry := prometheus.NewRegistry()
	m, err := pgxmetrics.New(registry, &pgxmetrics.Options{Name: "leads"})
	if err != nil {
		fmt.Println(err)
		return
	}
	config, err := pgxpool.ParseConfig("postgres://app@127.0.0.1:1/shop")
	if err != nil {
		fmt.Println(err)
		return
	}
	m.Attach(config, "primary") // after the config has its own tracer, before the pool is made
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	fmt.Println(config.ConnConfig.Tracer != nil)
	// Output: true
}
