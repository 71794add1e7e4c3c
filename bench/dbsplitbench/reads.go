package dbsplitbench

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/internal/faultconn"
)

const readNote = "One replica, one caller. Called through an interface, as sqlc does. Which server process answers makes a difference of several per cent, " +
	"so all but dbresolver use one session of the replica, in turns. Everything is opened anew for each of the repeats, and the repeats' medians are compared. " +
	"The row of pgxpool against itself shows what the noise does to a ratio."

const awayNote = "The same, where a proxy makes the replica's answers take about a millisecond more, as from another zone, and allocates, too: what dbsplit adds is a processor's " +
	"time, and does not grow with the way."

// readRepeats is how often the contenders are opened.
const readRepeats = 40

func (l *lab) reads(ctx context.Context) ([]report.Row, error) {
	whats := []string{"QueryRow", "Query, 100 rows", "Read-only transaction with one QueryRow"}
	return l.compareAfresh(ctx, whats, l.opts.times(readRepeats), 200*time.Millisecond, func(ctx context.Context) ([][]entry, func(), error) {
		c, err := l.servers(ctx)
		if err != nil {
			return nil, func() {}, err
		}
		return l.readers(ctx, c.Replica(0).Addr())
	})
}

// readsAway compares single reads from a replica that is not on this machine, as far as the way goes.
func (l *lab) readsAway(ctx context.Context) ([]report.Row, error) {
	c, err := l.servers(ctx)
	if err != nil {
		return nil, err
	}
	proxy, err := faultconn.New(c.Replica(0).Addr())
	if err != nil {
		return nil, err
	}
	defer proxy.Close()
	return l.compareAfresh(ctx, []string{"QueryRow, a millisecond away"}, l.opts.times(readRepeats/2), time.Second, func(ctx context.Context) ([][]entry, func(), error) {
		proxy.Heal()
		groups, end, err := l.readers(ctx, proxy.Addr())
		if err != nil {
			return nil, end, err
		}
		proxy.Delay(faultconn.ToClient, 500*time.Microsecond)
		return [][]entry{groups[0][:len(groups[0])-1]}, end, nil // dbresolver has a session of its own
	})
}

// readers opens everything that reads from a replica by an address, and returns what is compared with each other. end closes it.
func (l *lab) readers(ctx context.Context, replica string) (groups [][]entry, end func(), err error) {
	var ends []func()
	end = func() {
		for _, e := range slices.Backward(ends) {
			e()
		}
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	c, err := l.servers(ctx)
	if err != nil {
		return groups, end, err
	}
	primary := c.Primary().Addr()
	db, session, stop, err := openSplitSession(ctx, primary, replica)
	if err != nil {
		return groups, end, err
	}
	ends = append(ends, stop)
	pool, err := session.openPool(ctx, address(replica))
	if err != nil {
		return groups, end, err
	}
	ends = append(ends, pool.Close)
	again, err := session.openPool(ctx, address(replica))
	if err != nil {
		return groups, end, err
	}
	ends = append(ends, again.Close)
	resolver, err := openResolver(address(primary), address(replica))
	if err != nil {
		return groups, end, err
	}
	ends = append(ends, func() { _ = resolver.Close() })

	withToken := func(op func(context.Context) error) (func(context.Context) error, error) {
		session, w := scaleaware.WithWatermark(context.Background()) // as pairs gives to the others
		at, err := db.Position(ctx)
		w.Raise(at)
		return func(context.Context) error { return op(session) }, err
	}
	// The token is one that the replica has, also as far as the single probe of a calm monitor knows.
	if err := c.Replica(0).WaitCaughtUp(ctx); err != nil {
		return groups, end, err
	}
	ones, manies := own(sqlOne), own(sqlMany)
	viaSplit := func(ctx context.Context) error { return readOneBy(ctx, db.Read(), ones[0]) }
	manySplit := func(ctx context.Context) error { return readManyBy(ctx, db.Read(), manies[0]) }
	txSplit := func(ctx context.Context) error {
		return db.InReadTx(ctx, func(tx pgx.Tx) error { return readOneBy(ctx, tx, ones[0]) })
	}
	oneToken, err := withToken(viaSplit)
	if err != nil {
		return groups, end, err
	}
	manyToken, err := withToken(manySplit)
	if err != nil {
		return groups, end, err
	}
	txToken, err := withToken(txSplit)
	if err != nil {
		return groups, end, err
	}
	return [][]entry{
		{
			{"pgxpool", nil, func(ctx context.Context) error { return readOneBy(ctx, pool, ones[1]) }},
			{"pgxpool again", nil, func(ctx context.Context) error { return readOneBy(ctx, again, ones[2]) }},
			{"dbsplit", readGoal, viaSplit},
			{"dbsplit with a token", readGoal, oneToken},
			{"dbresolver", nil, func(ctx context.Context) error {
				var n int
				return resolver.QueryRowContext(ctx, sqlOne).Scan(&n)
			}},
		},
		{
			{"pgxpool", nil, func(ctx context.Context) error { return readManyBy(ctx, pool, manies[1]) }},
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
		},
		{
			{"pgxpool", nil, func(ctx context.Context) error {
				return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error { return readOneBy(ctx, tx, ones[1]) })
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
		},
	}, end, nil
}
