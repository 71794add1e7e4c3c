package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/examples/lead"
)

// recorder keeps the last statement of a connection, so that what the service runs is what gets explained.
type recorder struct {
	sql  string
	args []any
}

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	r.sql, r.args = data.SQL, data.Args
	return ctx
}

func (r *recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// largeTable is from how many rows on a sequential scan is a mistake. Below, it is often the best plan.
const largeTable = 10_000

// plan explains a statement and fails when that reads a large table as a whole.
func (t *dbTest) plan(ctx context.Context, s lead.Statement) (string, error) {
	tx, err := t.conn.Begin(ctx)
	if err != nil {
		return "", err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if s.Read != nil {
		err = s.Read(ctx, tx, t.ids[0])
	} else {
		err = s.Write(ctx, tx, t.ids[0])
	}
	if err != nil {
		return "", err
	}
	ran := *t.conn.Config().Tracer.(*recorder)
	var blob []byte
	if err := tx.QueryRow(ctx, "EXPLAIN (FORMAT JSON) "+ran.sql, ran.args...).Scan(&blob); err != nil {
		return "", fmt.Errorf("explain: %w", err)
	}
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal(blob, &plans); err != nil {
		return "", err
	}
	for _, table := range plans[0].Plan.scanned() {
		var rows float64
		if err := tx.QueryRow(ctx, `SELECT greatest(reltuples, 0)::float8 FROM pg_class WHERE oid = $1::regclass`, pgx.Identifier{table}.Sanitize()).Scan(&rows); err != nil {
			return "", err
		}
		if rows >= largeTable {
			return "", fmt.Errorf("it scans %q with its %.0f rows: create an index", table, rows)
		}
	}
	return "", nil
}

// planNode is what matters of a node of EXPLAIN's JSON.
type planNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Plans    []planNode `json:"Plans"`
}

// scanned are the tables that are read from end to end.
func (n planNode) scanned() (tables []string) {
	if n.Type == "Seq Scan" {
		tables = append(tables, n.Relation)
	}
	for _, child := range n.Plans {
		tables = append(tables, child.scanned()...)
	}
	return tables
}
