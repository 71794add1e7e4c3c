// Package peers holds the code of other libraries that documents show beside ours, so that it compiles.
package peers

import (
	"context"
	"database/sql"

	"github.com/bxcodec/dbresolver/v2"
)

func Example_dbresolver() {
	_ = func(primaryURL, replicaURL string) (dbresolver.DB, error) {
		primary, err := sql.Open("pgx", primaryURL)
		if err != nil {
			return nil, err
		}
		replica, err := sql.Open("pgx", replicaURL)
		if err != nil {
			return nil, err
		}
		db := dbresolver.New(
			dbresolver.WithPrimaryDBs(primary),
			dbresolver.WithReplicaDBs(replica),
			dbresolver.WithLoadBalancer(dbresolver.RoundRobinLB),
		)
		return db, nil
	}
	_ = func(ctx context.Context, db dbresolver.DB, name string) (n int, err error) {
		var id int
		err = db.QueryRowContext(ctx, `INSERT INTO leads (name) VALUES ($1) RETURNING id`, name).Scan(&id)
		if err != nil {
			return 0, err
		}
		err = db.QueryRowContext(ctx, `SELECT count(*) FROM leads WHERE id = $1`, id).Scan(&n) // 0 or 1
		return n, err
	}
}
