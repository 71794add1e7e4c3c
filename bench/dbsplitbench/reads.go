package dbsplitbench

import (
	"context"
	"database/sql"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/bench/internal/report"
)

const readNote = "One replica, the same for all, one caller. Called through an interface, as sqlc does. The row of pgxpool against itself shows what the noise does to a ratio."

func (l *lab) reads(ctx context.Context) (rows []report.Row, err error) {
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
	pool, err := openPool(ctx, address(replica))
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	again, err := openPool(ctx, address(replica))
	if err != nil {
		return nil, err
	}
	defer again.Close()
	resolver, err := openResolver(address(primary), address(replica))
	if err != nil {
		return nil, err
	}
	defer resolver.Close()

	withToken := func(op func(context.Context) error) (func(context.Context) error, error) {
		session, w := scaleaware.WithWatermark(context.Background()) // as pairs gives to the others
		at, err := db.Position(ctx)
		w.Raise(at)
		return func(context.Context) error { return op(session) }, err
	}
	// The token is one that the replica has, also as far as the single probe of a calm monitor knows.
	if err := c.Replica(0).WaitCaughtUp(ctx); err != nil {
		return nil, err
	}
	viaSplit := func(ctx context.Context) error { return readOne(ctx, db.Read()) }
	manySplit := func(ctx context.Context) error { return readMany(ctx, db.Read()) }
	txSplit := func(ctx context.Context) error {
		return db.InReadTx(ctx, func(tx pgx.Tx) error { return readOne(ctx, tx) })
	}
	oneToken, err := withToken(viaSplit)
	if err != nil {
		return nil, err
	}
	manyToken, err := withToken(manySplit)
	if err != nil {
		return nil, err
	}
	txToken, err := withToken(txSplit)
	if err != nil {
		return nil, err
	}
	for _, g := range []struct {
		what    string
		total   time.Duration
		entries []entry
	}{
		{"QueryRow", 10 * time.Second, []entry{
			{"pgxpool", nil, func(ctx context.Context) error { return readOne(ctx, pool) }},
			{"pgxpool again", nil, func(ctx context.Context) error { return readOne(ctx, again) }},
			{"dbsplit", readGoal, viaSplit},
			{"dbsplit with a token", readGoal, oneToken},
			{"dbresolver", nil, func(ctx context.Context) error {
				var n int
				return resolver.QueryRowContext(ctx, sqlOne).Scan(&n)
			}},
		}},
		{"Query, 100 rows", 5 * time.Second, []entry{
			{"pgxpool", nil, func(ctx context.Context) error { return readMany(ctx, pool) }},
			{"dbsplit", nil, manySplit},
			{"dbsplit with a token", nil, manyToken},
			{"dbresolver", nil, func(ctx context.Context) error {
				rows, err := resolver.QueryContext(ctx, sqlMany)
				if err != nil {
					return err
				}
				defer rows.Close()
				for n := 0; rows.Next(); {
					if err := rows.Scan(&n); err != nil {
						return err
					}
				}
				return rows.Err()
			}},
		}},
		{"Read-only transaction with one QueryRow", 5 * time.Second, []entry{
			{"pgxpool", nil, func(ctx context.Context) error {
				return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error { return readOne(ctx, tx) })
			}},
			{"dbsplit", nil, txSplit},
			{"dbsplit with a token", nil, txToken},
			{"dbresolver (on the primary)", nil, func(ctx context.Context) error {
				tx, err := resolver.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
				if err != nil {
					return err
				}
				defer tx.Rollback()
				var n int
				if err := tx.QueryRowContext(ctx, sqlOne).Scan(&n); err != nil {
					return err
				}
				return tx.Commit()
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
