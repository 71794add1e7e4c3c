package doccode_test

import (
	"context"
	"database/sql"
	"net/http"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
)

func Example_fromDBResolver() {
	_ = func(ctx context.Context, primaryURL string, replicaURLs []string) (*dbsplit.DB, *sql.DB, *sql.DB, error) {
		db, err := dbsplit.Open(ctx, dbsplit.Nodes{Primary: primaryURL, Replicas: replicaURLs}, nil)
		if err != nil {
			return nil, nil, nil, err
		}
		handle := sql.OpenDB(db.Connector())       // everything that was there: statements go to the primary
		reads := sql.OpenDB(db.Read().Connector()) // what is to go to replicas, one query after the other
		return db, handle, reads, nil
	}
	_ = func(ctx context.Context, handle, reads *sql.DB, name string) (n int, err error) {
		ctx, _ = scaleaware.WithWatermark(ctx) // once for each request or job; the middleware below does it
		var id int
		err = handle.QueryRowContext(ctx, `INSERT INTO leads (name) VALUES ($1) RETURNING id`, name).Scan(&id)
		if err != nil {
			return 0, err
		}
		err = reads.QueryRowContext(ctx, `SELECT count(*) FROM leads WHERE id = $1`, id).Scan(&n) // 1, from a replica
		return n, err
	}
	_ = func(ctx context.Context, db *dbsplit.DB, name string) error {
		err := db.InTx(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO leads (name) VALUES ($1)`, name)
			return err
		})
		if err != nil {
			return err
		}
		var n int
		return db.Read().QueryRow(ctx, `SELECT count(*) FROM leads`).Scan(&n)
	}
	_ = func(secrets []string, mux http.Handler) (http.Handler, error) {
		signer, err := scaleaware.NewSigner(secrets, nil)
		if err != nil {
			return nil, err
		}
		carrier, err := scaleaware.NewCarrier(signer, nil)
		if err != nil {
			return nil, err
		}
		return carrier.Middleware(mux), nil
	}
}
