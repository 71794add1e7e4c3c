package redisfleet_test

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/metrics/redisfleet"
	"github.com/scaleaware/scaleaware/redisclient"
)

// With the store, each instance's report is of all of them.
func Example() {
	rdb := redisclient.New(redisclient.Options("127.0.0.1:6379"))
	defer rdb.Close()
	fleet, err := redisfleet.New(rdb, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	capacity, err := metrics.NewCapacity(prometheus.NewRegistry(), &metrics.CapacityOptions{Instance: "api-1", Store: fleet})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, op := range capacity.Operations() {
		fmt.Println(op.Method, op.Path)
	}
	// Output:
	// GET /api/v1/performance/capacity/dashboard
	// GET /api/v1/performance/capacity/bottlenecks
	// GET /api/v1/performance/capacity/history
}
