package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"
)

// addPerformanceIndexes is the runbook's: an index on every partition of "Event", for reports by kind and time.
//
// PostgreSQL cannot build one on a partitioned table CONCURRENTLY, so it is made in steps that keep nobody waiting: an
// empty one on the parent, which is invalid until every partition has its own; each partition's built CONCURRENTLY; each
// attached. There is no transaction around it. Broken off, it is taken up again by the next Up, which builds what is
// missing and drops the unfinished index that a cancelled build leaves. Reverted, it is a matter of a moment: an index on a
// partitioned table cannot be dropped CONCURRENTLY.
func addPerformanceIndexes() *goose.Migration {
	return inGo("20240101000000_add_performance_indexes.go", goose.GoFunc{RunDB: indexEvents}, inTx(`DROP INDEX IF EXISTS "Event_kind_idx"`))
}

func indexEvents(ctx context.Context, db *sql.DB) (err error) {
	conn, err := db.Conn(ctx) // one session, for the setting
	if err != nil {
		return err
	}
	defer func() {
		_, reset := conn.ExecContext(context.WithoutCancel(ctx), `RESET lock_timeout`)
		err = errors.Join(err, reset, conn.Close())
	}()
	do := func(format string, names ...string) {
		if err != nil {
			return
		}
		var quoted []any
		for _, name := range names {
			quoted = append(quoted, pgx.Identifier{name}.Sanitize())
		}
		statement := fmt.Sprintf(format, quoted...)
		if _, err = conn.ExecContext(ctx, statement); err != nil {
			err = fmt.Errorf("%s: %w", statement, err)
		}
	}
	do(`SET lock_timeout = '3s'`)
	do(`CREATE INDEX IF NOT EXISTS "Event_kind_idx" ON ONLY "Event" (kind, timestamp)`)
	if err != nil {
		return err
	}
	partitions, err := withoutIndex(ctx, conn)
	for _, p := range partitions {
		index := p.name + "_kind_idx"
		// A build waits for transactions that are older than it, as long as they take, and keeps nobody else waiting.
		do(`SET lock_timeout = 0`)
		if p.unfinished {
			do(`DROP INDEX CONCURRENTLY %s`, index)
		}
		do(`CREATE INDEX CONCURRENTLY IF NOT EXISTS %s ON %s (kind, timestamp)`, index, p.name)
		do(`SET lock_timeout = '3s'`)
		do(`ALTER INDEX "Event_kind_idx" ATTACH PARTITION %s`, index)
	}
	return err
}

type partition struct {
	name       string
	unfinished bool
}

// withoutIndex returns the partitions that have no index attached, and whether they have one that is unfinished. A partition
// that is made meanwhile has its index from the parent.
func withoutIndex(ctx context.Context, conn *sql.Conn) (out []partition, err error) {
	rows, err := conn.QueryContext(ctx, `
		SELECT p.relname, coalesce(NOT x.indisvalid, false)
		FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhrelid
		LEFT JOIN pg_class i ON i.relname = p.relname || '_kind_idx' AND i.relnamespace = p.relnamespace
		LEFT JOIN pg_index x ON x.indexrelid = i.oid
		WHERE h.inhparent = '"Event"'::regclass AND NOT EXISTS (
			SELECT FROM pg_index own JOIN pg_inherits a ON a.inhrelid = own.indexrelid
			WHERE own.indrelid = p.oid AND a.inhparent = '"Event_kind_idx"'::regclass)
		ORDER BY p.relname`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var p partition
		if err := rows.Scan(&p.name, &p.unfinished); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}
