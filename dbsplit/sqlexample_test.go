package dbsplit_test

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
)

// The handle for ent (sql.OpenDB), gorm (postgres.Config.Conn), bun (bun.NewDB), sqlx (sqlx.NewDb) and goose
// (goose.NewProvider).
func ExampleDB_Connector() {
	db, err := dbsplit.Open(context.Background(), dbsplit.Nodes{Primary: "postgres://app@127.0.0.1:1/shop"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	handle := sql.OpenDB(db.Connector())
	defer handle.Close() // before the DB
	serve := func(ctx context.Context) (n int, err error) {
		ctx, _ = scaleaware.WithWatermark(ctx) // once for each request or job
		if _, err := handle.ExecContext(ctx, "insert into leads (name) values ($1)", "Ada"); err != nil {
			return 0, err
		}
		tx, err := handle.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // on a replica that has the row
		if err != nil {
			return 0, err
		}
		defer tx.Rollback()
		return n, tx.QueryRowContext(ctx, "select count(*) from leads").Scan(&n)
	}
	_, err = serve(context.Background())
	fmt.Println(err != nil) // nobody listens there
	// Output: true
}

// A second handle for code that only reads and opens no transactions.
func ExampleReader_Connector() {
	report := func(ctx context.Context, db *dbsplit.DB) (total int, err error) {
		reads := sql.OpenDB(db.Read().Connector()) // once, beside the other handle
		defer reads.Close()
		err = reads.QueryRowContext(ctx, "select count(*) from leads").Scan(&total)
		return total, err
	}
	_ = report
}

// COPY, which database/sql does not have.
func ExampleRawConn() {
	load := func(ctx context.Context, handle *sql.DB, names [][]any) error {
		conn, err := handle.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		return dbsplit.RawConn(ctx, conn, func(c *pgx.Conn) error {
			_, err := c.CopyFrom(ctx, pgx.Identifier{"leads"}, []string{"name"}, pgx.CopyFromRows(names))
			return err
		})
	}
	_ = load
}
