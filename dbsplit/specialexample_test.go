package dbsplit_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5"

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

// A new replica is compared with the others before it answers anybody. Here its answers differ, since they name the server.
func ExampleShadow() {
	example(nil, func(ctx context.Context, db *dbsplit.DB, _ replicas) {
		others, added := db.Nodes()[1].Name, db.Nodes()[2].Name
		differs := make(chan dbsplit.ShadowResult, 1)
		r := db.Read(dbsplit.Canary(others, 1), dbsplit.Shadow(added, 1, func(_ context.Context, result dbsplit.ShadowResult) { differs <- result }))
		rows, _ := r.Query(ctx, "select inet_server_port()")
		if _, err := pgx.CollectRows(rows, pgx.RowTo[int]); err != nil {
			log.Fatal(err)
		}
		result := <-differs
		fmt.Println(result.SQL, result.Answer.Provenance.Node == others, result.Shadow.Provenance.Node == added, result.Answer.Hash == result.Shadow.Hash, result.Err)
	})
	// Output: select inet_server_port() true true false <nil>
}
