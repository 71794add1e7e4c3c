package dbsplitbench

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/dbsplit"
)

const writeNote = "One caller. A watermark is new for each operation, as at the edge of each request, and its cost is included."

func (l *lab) writes(ctx context.Context) (rows []report.Row, err error) {
	c, err := l.servers(ctx)
	if err != nil {
		return nil, err
	}
	primary, replica := c.Primary().Addr(), c.Replica(0).Addr()
	db, stop, err := openSplit(ctx, calm(), primary, replica)
	if err != nil {
		return nil, err
	}
	defer stop()
	pool, err := openPool(ctx, address(primary))
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	resolver, err := openResolver(address(primary), address(replica))
	if err != nil {
		return nil, err
	}
	defer resolver.Close()

	insertPool := func(ctx context.Context) error { return insertOne(ctx, pool) }
	for _, g := range []struct {
		what    string
		total   time.Duration
		entries []entry
	}{
		{"Exec insert", 8 * time.Second, []entry{
			{"pgxpool", nil, insertPool},
			{"dbsplit", nil, func(ctx context.Context) error { return insertOne(ctx, db) }},
			{"dbsplit with a watermark", nil, func(ctx context.Context) error {
				ctx, _ = scaleaware.WithWatermark(ctx)
				return insertOne(ctx, db)
			}},
			{"dbsplit, and the token taken", nil, func(ctx context.Context) error {
				ctx, w := scaleaware.WithWatermark(ctx)
				if err := insertOne(ctx, db); err != nil {
					return err
				}
				_, err := w.Written(ctx)
				return err
			}},
			{"dbresolver", nil, func(ctx context.Context) error {
				_, err := resolver.ExecContext(ctx, sqlInsert)
				return err
			}},
		}},
		{"Exec insert, then a QueryRow that sees it", 6 * time.Second, []entry{
			{"pgxpool, both on the primary", nil, func(ctx context.Context) error {
				if err := insertOne(ctx, pool); err != nil {
					return err
				}
				return readOne(ctx, pool)
			}},
			{"dbsplit, which waits for a replica", nil, writeThenRead(db)},
			{"dbsplit, which does not wait", nil, writeThenRead(db, dbsplit.WaitForReplica(-1))},
		}},
		{"Transaction with one Exec", 5 * time.Second, []entry{
			{"pgxpool", nil, func(ctx context.Context) error {
				return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return insertOne(ctx, tx) })
			}},
			{"dbsplit", nil, func(ctx context.Context) error {
				return db.InTx(ctx, func(tx pgx.Tx) error { return insertOne(ctx, tx) })
			}},
		}},
	} {
		more, err := l.compare(ctx, g.what, g.total, g.entries...)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func writeThenRead(db *dbsplit.DB, opts ...dbsplit.ReadOption) func(context.Context) error {
	read := db.Read(opts...)
	return func(ctx context.Context) error {
		ctx, _ = scaleaware.WithWatermark(ctx)
		if err := insertOne(ctx, db); err != nil {
			return err
		}
		return readOne(ctx, read)
	}
}
