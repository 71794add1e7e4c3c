package dbsplit_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A row that is scanned twice is an error, as with pgx, and no panic; so are results of a closed batch.
func TestScanTwice(t *testing.T) {
	t.Parallel()
	db, _, _ := settled(t, nil)
	ctx := within(t, 20*time.Second)
	row := db.QueryRow(ctx, "select 1")
	var n int
	must(t, row.Scan(&n))
	if err := row.Scan(&n); err == nil {
		t.Error("the second Scan went well")
	}
	b := new(pgx.Batch)
	b.Queue("select 1")
	results := db.SendBatch(ctx, b)
	left := results.QueryRow()
	must(t, results.Close())
	if err := left.Scan(&n); err == nil {
		t.Error("a row of the batch is scanned after Close")
	}
	if _, err := results.Exec(); err == nil {
		t.Error("Exec after Close went well")
	}
	if err := results.QueryRow().Scan(&n); err == nil {
		t.Error("Scan after Close went well")
	}
}
