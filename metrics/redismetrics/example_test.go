package redismetrics_test

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/metrics/redismetrics"
	"github.com/scaleaware/scaleaware/redisclient"
)

// Nobody listens there, and that is measured, too.
func Example() {
	registry := prometheus.NewRegistry()
	rdb := redisclient.New(redisclient.Options("127.0.0.1:1"))
	defer rdb.Close()
	if err := redismetrics.Attach(rdb, &redismetrics.Options{Name: "cache", Registerer: registry}); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(rdb.Get(context.Background(), "key").Err() != nil)
	families, _ := registry.Gather()
	var calls uint64
	for _, family := range families {
		if family.GetName() == metrics.RedisCommandDuration.Name {
			for _, m := range family.GetMetric() {
				calls += m.GetHistogram().GetSampleCount()
			}
		}
	}
	fmt.Println(calls)
	// Output:
	// true
	// 1
}
