package dbsplitbench

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/bench/internal/trips"
	"github.com/scaleaware/scaleaware/dbsplit"
)

const tripsNote = "Round trips of one operation, to the primary + to the replica, counted by a proxy before each server: a mean of 200 operations. Probes that a waiting read asks for are counted with the replica's."

const (
	counted = 200
	// background is what the monitor and the pools' own checks may add to a mean: they ask a few times a minute.
	background = 0.1
)

func (l *lab) roundTrips(ctx context.Context) (rows []report.Row, err error) {
	c, err := l.servers(ctx)
	if err != nil {
		return nil, err
	}
	var proxies [2]*trips.Counter
	for i := range proxies {
		if proxies[i], err = trips.New(c.Servers()[i].Addr()); err != nil {
			return nil, err
		}
		defer proxies[i].Close()
	}
	db, stop, err := openSplit(ctx, calm(), proxies[0].Addr(), proxies[1].Addr())
	if err != nil {
		return nil, err
	}
	defer stop()
	pool, err := openPool(ctx, address(proxies[0].Addr()))
	if err != nil {
		return nil, err
	}
	defer pool.Close()

	count := func(op func(context.Context) error) (n [2]float64, err error) {
		for range 4 { // statements are prepared, and connections made
			if err := op(ctx); err != nil {
				return n, err
			}
		}
		before := [2]int64{proxies[0].Count(), proxies[1].Count()}
		for range counted {
			if err := op(ctx); err != nil {
				return n, err
			}
		}
		for i := range n {
			n[i] = float64(proxies[i].Count()-before[i]) / counted
		}
		return n, nil
	}
	watched := func(op func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			ctx, _ = scaleaware.WithWatermark(ctx)
			return op(ctx)
		}
	}
	insertPool := func(ctx context.Context) error { return insertOne(ctx, pool) }
	insertSplit := func(ctx context.Context) error { return insertOne(ctx, db) }
	txPool := func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return insertOne(ctx, tx) })
	}
	txSplit := func(ctx context.Context) error {
		return db.InTx(ctx, func(tx pgx.Tx) error { return insertOne(ctx, tx) })
	}
	for _, g := range []struct {
		what       string
		peer, ours func(context.Context) error
		limit      float64 // more on the primary than the peer
	}{
		{"Exec insert", insertPool, insertSplit, 0},
		{"Exec insert with a watermark", insertPool, watched(insertSplit), 0},
		{"ten inserts in one watermark, never read", ten(insertPool), watched(ten(insertSplit)), 0},
		{"transaction with one Exec, with a watermark", txPool, watched(txSplit), 0},
		{"Exec insert, and the token taken", insertPool, func(ctx context.Context) error {
			ctx, w := scaleaware.WithWatermark(ctx)
			if err := insertOne(ctx, db); err != nil {
				return err
			}
			_, err := w.Written(ctx)
			return err
		}, 1},
		{"ten inserts in one watermark, then a read that sees them", ten(insertPool), watched(func(ctx context.Context) error {
			if err := ten(insertSplit)(ctx); err != nil {
				return err
			}
			return readOne(ctx, db.Read())
		}), 1},
		{"QueryRow with nothing written (peer: on the primary)", func(ctx context.Context) error { return readOne(ctx, pool) },
			func(ctx context.Context) error { return readOne(ctx, db.Read()) }, 0},
		{"Exec insert, then a read that sees it and does not wait (peer: on the primary)", func(ctx context.Context) error {
			if err := insertOne(ctx, pool); err != nil {
				return err
			}
			return readOne(ctx, pool)
		}, writeThenRead(db, dbsplit.WaitForReplica(-1)), 1},
	} {
		peer, err := count(g.peer)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", g.what, err)
		}
		ours, err := count(g.ours)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", g.what, err)
		}
		rows = append(rows, report.Row{
			What: g.what, Goal: fmt.Sprintf("≤ +%.0f on the primary", g.limit),
			Peer: trip(peer), Ours: trip(ours), Ratio: fmt.Sprintf("%+.2f", ours[0]-peer[0]),
			Met: report.AtMost(ours[0]-peer[0], g.limit+background),
		})
	}
	return rows, nil
}

func trip(n [2]float64) string { return fmt.Sprintf("%.2f + %.2f", n[0], n[1]) }

func ten(op func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for range 10 {
			if err := op(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}
