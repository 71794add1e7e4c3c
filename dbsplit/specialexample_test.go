package dbsplit_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// A replica is stuck in a statement. The other one answers.
func ExampleHedge() {
	example(nil, func(ctx context.Context, db *dbsplit.DB, _ replicas) {
		for range 20 { // one read of twenty may be sent twice
			count(ctx, db.Read(dbsplit.Hedge(0)))
		}
		stuck := db.Nodes()[1].Name
		sql := "select pg_sleep(case '127.0.0.1:' || inet_server_port() when $1 then 100 else 0 end)::text"
		r := db.Read(dbsplit.Hedge(20*time.Millisecond), dbsplit.Canary(stuck, 1), dbsplit.OnRoute(func(p dbsplit.Provenance) {
			fmt.Println(p.Reason, p.Node == stuck)
		}))
		if err := r.QueryRow(ctx, sql, stuck).Scan(nil); err != nil {
			log.Fatal(err)
		}
	})
	// Output: hedge false
}
