package lead

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/readonly/pgstore"
)

//go:embed schema.sql
var schema string

// migrationLock lets one migration run at a time, whoever starts it.
const migrationLock = 7_411_000_001

// Migrate brings the database to the shape that this version needs. It may be run again at any time.
func Migrate(ctx context.Context, primaryURL string) (err error) {
	conn, err := pgx.Connect(ctx, primaryURL)
	if err != nil {
		return fmt.Errorf("migration needs the primary: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	statements := append([]string{
		fmt.Sprintf(`SELECT pg_advisory_xact_lock(%d)`, migrationLock), schema, queue.OutboxSchema, pgstore.Schema,
	}, partitions(time.Now().UTC())...)
	for _, sql := range statements {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("migration: %w", err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("migration: %w", err)
	}
	// For the slow-queries operation. Not every server has it; the operation then says what is missing.
	if _, err := conn.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements`); err != nil {
		fmt.Println("without pg_stat_statements there is no list of slow queries:", err)
	}
	return nil
}

// partitions gives "Event" this month and the next; the operation partitions/Event makes the coming ones.
func partitions(now time.Time) []string {
	var out []string
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	for range 2 {
		next := month.AddDate(0, 1, 0)
		out = append(out, fmt.Sprintf(`CREATE TABLE IF NOT EXISTS "Event_%s" PARTITION OF "Event" FOR VALUES FROM ('%s') TO ('%s')`,
			month.Format("2006_01"), month.Format("2006-01-02 15:04:05Z07:00"), next.Format("2006-01-02 15:04:05Z07:00")))
		month = next
	}
	return out
}
