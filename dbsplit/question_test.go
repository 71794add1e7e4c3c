package dbsplit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaleaware/scaleaware/dbsplit"
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
