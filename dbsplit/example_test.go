package dbsplit_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
)

// All mistakes are told at once, and no password with them.
func ExampleOpen_mistakes() {
	_, err := dbsplit.Open(context.Background(), dbsplit.Nodes{
		Primary:  "postgres://app:s3cret@db1/shop?pool_max_conns=many",
		Replicas: []string{"", "postgres://app:s3cret@db2/shop", "postgres://app:s3cret@db2:5432/shop"},
	}, &dbsplit.Options{MinConns: 10, MaxConns: 5})
	fmt.Println(err)
	// Output:
	// dbsplit: Nodes.Primary is no connection string: look at pool_max_conns
	// dbsplit: Nodes.Replicas[0] is empty: give a connection string like postgres://user@host:5432/database, or leave the entry out
	// dbsplit: Nodes.Replicas[2] names the same server as Nodes.Replicas[1], db2:5432: name each server once
	// dbsplit: Options.MinConns is 10, want at most MaxConns, which is 5
}

// Servers may be down when a DB is opened: it says so, and what to do.
func ExampleDB_Ready() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	db, err := dbsplit.Open(ctx, dbsplit.Nodes{Primary: "postgres://app@127.0.0.1:1/shop"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	fmt.Println(db.Ready(ctx) != nil, db.Nodes()[0].Advice)
	// Output: true the monitor is not running: call Run
}

// A write, and reads that see it: from a replica as soon as one has it.
func ExampleDB_Read() {
	serve := func(ctx context.Context, db *dbsplit.DB) error {
		ctx, _ = scaleaware.WithWatermark(ctx) // once for each request or job
		err := db.InTx(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into leads (name) values ($1)", "Ada")
			return err
		})
		if err != nil {
			return err
		}
		var n int
		return db.Read().QueryRow(ctx, "select count(*) from leads").Scan(&n)
	}
	_ = serve
}

// A report that may be a minute old, but no older.
func ExampleMaxStaleness() {
	report := func(ctx context.Context, db *dbsplit.DB) (total int, err error) {
		err = db.Read(dbsplit.MaxStaleness(time.Minute)).QueryRow(ctx, "select count(*) from leads").Scan(&total)
		return total, err
	}
	_ = report
}

// The partitions of a table in a month's housekeeping: rows that came before their month's partition go where they
// belong, the coming months are made, and what is older than a year is detached. Each step may be called again.
func ExampleDB_MoveDefaultRows() {
	tidy := func(ctx context.Context, db *dbsplit.DB) error {
		moved, err := db.MoveDefaultRows(ctx, "Event", dbsplit.MoveOptions{})
		if err != nil {
			return err
		}
		for _, m := range moved.Months {
			fmt.Printf("%s: %d rows %s %s\n", m.Partition, m.Rows, m.Result, m.Reason)
		}
		made, err := db.EnsurePartitions(ctx, "Event", 3, false)
		if err != nil {
			return err
		}
		fmt.Println("made", made.Created)
		old, err := db.DetachPartitions(ctx, "Event", dbsplit.DetachOptions{KeepMonths: 12}) // their rows stay, in tables of their own
		if err != nil {
			return err
		}
		for _, p := range old.Partitions {
			fmt.Println("archive and drop", p.Detached)
		}
		return nil
	}
	_ = tidy
}

// A mistake is told before the database is asked, and errors are ready for the management listener.
func ExampleDB_DetachPartitions() {
	db, err := dbsplit.Open(context.Background(), dbsplit.Nodes{Primary: "postgres://app@127.0.0.1:1/shop"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	_, err = db.DetachPartitions(context.Background(), "Event", dbsplit.DetachOptions{Drop: true})
	fmt.Println(err)
	_, err = db.Sizes(context.Background(), -time.Hour, 10)
	fmt.Println(err)
	// Output:
	// admin: 0 months to keep: give 1 to 1200
	// admin: -1h0m0s is no window: give a duration like 24h
}

// The operations and what they are for, as /openapi.json lists them.
func ExampleDB_Operations() {
	db, err := dbsplit.Open(context.Background(), dbsplit.Nodes{Primary: "postgres://app@127.0.0.1:1/shop"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	for _, op := range db.Operations() {
		fmt.Println(op.Method, strings.TrimPrefix(op.Path, "/api/v1/performance/database/"), "by", op.Role)
	}
	// Output:
	// GET slow-queries by viewer
	// GET replication by viewer
	// GET sizes by viewer
	// POST optimize-table/{table} by operator
	// POST cancel-long-running by operator
	// POST pool by operator
	// GET partitions/{table} by viewer
	// POST partitions/{table} by operator
	// POST partitions/{table}/move-default by operator
	// POST partitions/{table}/retain by operator
}
