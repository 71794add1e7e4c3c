// Command sqlc writes on the primary and reads on replicas with code that sqlc made, and sees its own write at once.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/examples/sqlc/queries"
)

//go:embed schema.sql
var schema string

func main() {
	nodes := dbsplit.Nodes{Primary: os.Getenv("DATABASE_URL_PRIMARY"), Replicas: strings.Split(os.Getenv("DATABASE_URL_REPLICA"), ",")}
	if err := run(context.Background(), os.Stdout, nodes); err != nil {
		fmt.Fprintln(os.Stderr, "sqlc:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, nodes dbsplit.Nodes) error {
	db, err := dbsplit.Open(ctx, nodes, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- db.Run(running) }() // watches the replicas; without it reads go to the primary
	defer func() { stop(); <-done }()

	// One unit of work, as a request is. In a service, a middleware begins it.
	ctx, _ = scaleaware.WithWatermark(ctx)
	if err := db.InTx(ctx, func(tx pgx.Tx) error { // a migration's business in a service
		_, err := tx.Exec(ctx, schema)
		return err
	}); err != nil {
		return err
	}
	note, err := create(ctx, db, "written by sqlc")
	if err != nil {
		return err
	}
	got, err := queries.New(db.Read()).GetNote(ctx, note.ID)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "read back: %s\n", got.Body)
	return nil
}

// create writes in a transaction on the primary. The commit raises the watermark of ctx.
func create(ctx context.Context, db *dbsplit.DB, body string) (note queries.Note, err error) {
	err = db.InTx(ctx, func(tx pgx.Tx) error {
		note, err = queries.New(tx).CreateNote(ctx, body)
		return err
	})
	return note, err
}
