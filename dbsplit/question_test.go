package dbsplit_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// When the primary refuses a write as read-only, all nodes are looked at before the next one is sent, whenever the monitor
// would have looked: writes do not fail one after the other while somebody else is the primary.
func TestReadOnlyPrimaryIsQuestioned(t *testing.T) {
	t.Parallel()
	ctx := within(t, 100*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	db := run(t, nodesOf(c, "postgres"), &dbsplit.Options{ProbeInterval: time.Hour, MaxConns: 1})
	await(t, db, "both nodes", func() bool { return db.Nodes()[0].Up && db.Nodes()[1].Up })
	exec(t, db, "create table notes (n int)")
	// What looks at the fleet gives a connection back, and so would notice the promotion.
	await(t, db, "the fleet to be counted", func() bool { return db.Nodes()[0].FleetConnections > 0 && db.Nodes()[1].FleetConnections > 0 })
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	must(t, c.Replica(0).Promote(ctx))
	if to := db.Nodes()[0].Role; to != "primary" {
		t.Fatalf("the monitor has looked already: %s", to)
	}
	must(t, c.Primary().Exec(ctx, "alter system set default_transaction_read_only = on", "select pg_reload_conf()"))
	t.Cleanup(func() {
		must(t, c.Primary().Exec(context.Background(), "alter system reset default_transaction_read_only"))
	})
	n := 0
	var refused *pgconn.PgError
	await(t, db, "the old primary to refuse a write", func() bool {
		n++
		_, err := db.Exec(ctx, "insert into notes values ($1)", n)
		return errors.As(err, &refused) && refused.Code == "25006"
	})
	exec(t, db, "insert into notes values ($1)", 0) // at once
	if at := db.Nodes()[1].Role; at != "primary" {
		t.Errorf("the promoted server is a %s", at)
	}
	if !get[bool](t, ctx, db.Read(dbsplit.PreferPrimary()), "select exists (select from notes where n = 0)") {
		t.Error("the write is not on the promoted server")
	}
}

// Writes that are refused because of what their own session has set hold up nobody: the primary says that it takes writes, and
// others need not be waited for.
func TestReadOnlySessionsHoldUpNobody(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	const late = 500 * time.Millisecond
	p, through := proxied(t, c.Replica(0), database)
	db := run(t, dbsplit.Nodes{Primary: c.Primary().URL(database), Replicas: []string{through, c.Replica(1).URL(database)}},
		&dbsplit.Options{ProbeTimeout: 20 * time.Second})
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	ctx := within(t, 60*time.Second)
	exec(t, db, "create table notes (n int)")
	p.Delay(faultconn.ToClient, late)
	took := make([]time.Duration, 0, 20)
	for range cap(took) {
		err := db.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
			if _, err := conn.Exec(ctx, "set default_transaction_read_only = on"); err != nil {
				return err
			}
			_, err := conn.Exec(ctx, "insert into notes values (1)")
			return err
		})
		if pgErr := new(pgconn.PgError); !errors.As(err, &pgErr) || pgErr.Code != "25006" {
			t.Fatalf("a read-only session: %v", err)
		}
		begun := time.Now()
		exec(t, db, "insert into notes values (2)")
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	if half := took[len(took)/2]; half > late/3 {
		t.Errorf("half of the writes took %v and more", half)
	}
	p.Heal()
}
