// Command quickstart writes to the primary and reads it back at once, through a cache, from a replica that has it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/redisclient"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	replicas := strings.Split(os.Getenv("DATABASE_URL_REPLICA"), ",")
	db, err := dbsplit.Open(ctx, dbsplit.Nodes{Primary: os.Getenv("DATABASE_URL_PRIMARY"), Replicas: replicas}, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- db.Run(running) }() // watches the replicas; without it reads go to the primary
	defer func() { stop(); <-done }()
	rdb := redisclient.New(redisclient.Options(strings.Split(os.Getenv("REDIS_ADDRS"), ",")...))
	defer rdb.Close()
	store, err := cache.New(rdb, &cache.Options{Prefix: "quickstart:"})
	if err != nil {
		return err
	}
	notes := cache.Of[string](store, "note", cache.TTL(time.Minute))

	ctx, _ = scaleaware.WithWatermark(ctx) // one unit of work, as a request is: it sees its own writes
	var id string
	err = db.InTx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS note (id serial PRIMARY KEY, body text)`)
		return errors.Join(err, tx.QueryRow(ctx, `INSERT INTO note (body) VALUES ('written') RETURNING id::text`).Scan(&id))
	})
	if err != nil {
		return err
	}
	body, err := notes.Load(ctx, id, func(ctx context.Context, id string) (body string, err error) {
		return body, db.Read().QueryRow(ctx, `SELECT body FROM note WHERE id = $1::int`, id).Scan(&body)
	})
	fmt.Println("read back:", body)
	return err
}
