package dbsplit_test

import (
	"errors"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/pgbouncer"
)

// Behind a pooler nothing is cancelled: the connection to it is closed when the statement does not end.
func TestHedgeThroughAPooler(t *testing.T) {
	for _, params := range []string{"&node_pooler=transaction", "&node_pooler=transaction&default_query_exec_mode=simple_protocol"} {
		db, c, _ := pooled(t, pgbouncer.Transaction, params, nil)
		ctx := within(t, 60*time.Second)
		for range 20 {
			get[int](t, ctx, db.Read(dbsplit.Hedge(time.Hour)), "select $1::int", 1)
		}
		var p dbsplit.Provenance
		r := db.Read(dbsplit.Hedge(20*time.Millisecond), dbsplit.Canary(db.Nodes()[1].Name, 1), dbsplit.OnRoute(func(told dbsplit.Provenance) { p = told }))
		if err := r.QueryRow(ctx, hangsOn(c.Replica(0))).Scan(nil); err != nil || p.Reason != "hedge" {
			t.Errorf("%v, %+v", err, p)
		}
		await(t, db, "the end of the loser", func() bool { return db.Nodes()[1].Inflight == 0 })
		if n := db.Nodes()[1]; !n.Up {
			t.Errorf("%+v", n)
		}
	}
}

// A read over database/sql is hedged as others are.
func TestHedgeOverSQL(t *testing.T) {
	h := hedged(t, dbsplit.Options{ProbeTimeout: 20 * time.Second})
	ctx := within(t, 60*time.Second)
	var p dbsplit.Provenance
	s := openSQL(t, h.first(20*time.Millisecond, &p).Connector())
	var text string
	if err := s.QueryRowContext(ctx, hangsOn(h.c.Replica(0))).Scan(&text); err != nil || p.Reason != "hedge" {
		t.Errorf("%v, %+v", err, p)
	}
	h.quiet(t)
}

// Close ends what lost.
func TestCloseEndsHedges(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	p, through := proxied(t, c.Replica(0), database)
	db, err := dbsplit.Open(t.Context(), dbsplit.Nodes{Primary: c.Primary().URL(database), Replicas: []string{through, c.Replica(1).URL(database)}},
		&dbsplit.Options{ProbeTimeout: 20 * time.Second})
	must(t, err)
	stop := start(t, db)
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	ctx := within(t, 60*time.Second)
	for range 20 {
		get[int](t, ctx, db.Read(dbsplit.Hedge(time.Hour), dbsplit.Canary(p.Addr(), 1)), "select 1")
	}
	p.Stall(faultconn.ToClient)
	get[int](t, ctx, db.Read(dbsplit.Hedge(20*time.Millisecond), dbsplit.Canary(p.Addr(), 1)), "select 1")
	stop()
	closed := make(chan struct{})
	go func() { db.Close(); close(closed) }()
	await(t, db, "the begin of Close", func() bool { return db.Ready(ctx) == dbsplit.ErrClosed })
	p.Heal() // pgx asks the server to cancel, and waits for its answer
	select {
	case <-closed:
	case <-ctx.Done():
		t.Fatal("Close does not end")
	}
	if err := db.Read(dbsplit.Hedge(0)).QueryRow(ctx, "select 1").Scan(nil); !errors.Is(err, dbsplit.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
