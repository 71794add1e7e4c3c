package dbsplit_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgbouncer"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// serializable makes serializable the default of a new database, which no standby can give.
func serializable(t *testing.T) (c *pgcluster.Cluster, database string) {
	t.Helper()
	c = shared.Get(t)
	database = c.Database(t)
	ctx := within(t, 60*time.Second)
	must(t, c.Primary().Exec(ctx, fmt.Sprintf("alter database %q set default_transaction_isolation = 'serializable'", database)))
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	return c, database
}

// Where serializable is the default, replicas are up and serve reads, which are repeatable there; the primary's sessions stay
// as they are.
func TestSerializableByDefault(t *testing.T) {
	t.Parallel()
	const isolation = "select current_setting('transaction_isolation')"
	for name, params := range map[string]string{"direct": "", "behind a pooler": "&node_pooler=session"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, database := serializable(t)
			nodes := nodesOf(c, database)
			if params != "" {
				nodes, _ = behind(t, c, database, params, pgbouncer.Options{Mode: pgbouncer.Session})
			}
			ctx := within(t, 60*time.Second)
			db := run(t, nodes, nil)
			await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
			for range 20 {
				if got := get[string](t, ctx, db.Read(dbsplit.FallBack(dbsplit.FallbackNone)), isolation); got != "repeatable read" {
					t.Errorf("a read on a replica is %s", got)
				}
			}
			err := pgx.BeginFunc(ctx, db.Read(dbsplit.FallBack(dbsplit.FallbackNone)), func(tx pgx.Tx) error {
				if got := get[string](t, ctx, tx, isolation); got != "repeatable read" {
					t.Errorf("a transaction on a replica is %s", got)
				}
				return nil
			})
			must(t, err)
			if got := get[string](t, ctx, db.Read(dbsplit.PreferPrimary()), isolation); got != "serializable" {
				t.Errorf("a read on the primary is %s", got)
			}
			if got := get[string](t, ctx, db, isolation); got != "serializable" {
				t.Errorf("a statement on the primary is %s", got)
			}
			reports, err := db.CancelLongRunning(ctx, dbsplit.CancelOptions{OlderThan: time.Hour, DryRun: true})
			must(t, err)
			for _, r := range reports {
				if r.Error != "" {
					t.Errorf("on %s: %s", r.Node, r.Error)
				}
			}
		})
	}
}

// A pooler in transaction mode gives no session that could be made repeatable. Such a replica gets no reads, and says why.
func TestSerializableByDefaultBehindATransactionPooler(t *testing.T) {
	t.Parallel()
	c, database := serializable(t)
	nodes, _ := behind(t, c, database, "&node_pooler=transaction", pgbouncer.Options{Mode: pgbouncer.Transaction})
	db := run(t, nodes, nil)
	await(t, db, "the probes", func() bool { return probed(db, 0) && probed(db, 1) && probed(db, 2) })
	if s := served(t, within(t, 60*time.Second), db.Read()); s != "primary" {
		t.Errorf("a read was served by the %s", s)
	}
	await(t, db, "advice", func() bool { return strings.Contains(db.Nodes()[1].Advice, "default_transaction_isolation") })
}

// A replica refuses what asks for a serializable transaction by itself, and the primary is asked instead, once. Other things that
// a server does not support are no reason to ask another one.
func TestSerializableStatementGoesToThePrimary(t *testing.T) {
	t.Parallel()
	db, c, _ := settled(t, nil)
	ctx := within(t, 60*time.Second)
	primary := c.Primary().Addr()
	for sql, want := range map[string]struct {
		sent int
		fine bool
	}{
		"begin isolation level serializable; select 1; commit":                         {2, true},
		"do $$begin raise exception using errcode = '0A000'; end$$":                    {1, false},
		"begin isolation level serializable; do $$begin raise sqlstate '0A000'; end$$": {2, false},
		"select relname from pg_class group by relname for share":                      {1, false},
	} {
		var went routes
		_, err := db.Read(dbsplit.OnRoute(went.note)).Exec(ctx, sql)
		to := went.all()
		if (err == nil) != want.fine || len(to) != want.sent || slices.Index(to, primary) != want.sent-1 && want.sent > 1 || want.sent == 1 && to[0] == primary {
			t.Errorf("%s: %v, sent to %v", sql, err, to)
		}
	}
}

// A batch that begins a serializable transaction goes to the primary, as BeginTx does.
func TestSerializableBatchGoesToThePrimary(t *testing.T) {
	t.Parallel()
	db, _, _ := settled(t, nil)
	ctx := within(t, 60*time.Second)
	for options, want := range map[pgx.TxOptions]string{
		{IsoLevel: pgx.Serializable}: "serializable on in primary", {IsoLevel: pgx.RepeatableRead}: "repeatable read on in replica",
	} {
		b := new(pgx.Batch)
		b.BeginTx(options)
		b.Queue("select concat_ws(' ', current_setting('transaction_isolation'), current_setting('transaction_read_only'), 'in', case when pg_is_in_recovery() then 'replica' else 'primary' end)")
		results := db.Read().SendBatch(ctx, b)
		defer results.Tx().Rollback(ctx)
		defer results.Close()
		_, err := results.Exec()
		must(t, err)
		var got string
		must(t, results.QueryRow().Scan(&got))
		must(t, results.Close())
		must(t, results.Tx().Commit(ctx))
		if got != want {
			t.Errorf("%+v: %s", options, got)
		}
	}
}
