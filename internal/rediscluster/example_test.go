package rediscluster_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/scaleaware/scaleaware/internal/localserver"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// The usual shape of a test of failover. (Tests of a package share one cluster: see NewShared.)
func Example() {
	ctx := context.Background()
	cluster, err := rediscluster.Start(ctx, nil)
	if errors.Is(err, localserver.ErrNotInstalled) {
		fmt.Println("run scripts/install-servers")
		return
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cluster.Close()

	master, _ := cluster.MasterFor(ctx, "key")
	replica, _ := cluster.ReplicaOf(ctx, master)
	if err := replica.Failover(ctx); err != nil {
		fmt.Println(err)
	}
	now, _ := cluster.MasterFor(ctx, "key")
	fmt.Println(len(cluster.Addrs()), "nodes; the replica took over:", now == replica)
	// Output:
	// 6 nodes; the replica took over: true
}
