package dbsplit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
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

// Where the node that writes go to is a standby, and refuses a serializable read as the replicas do, the read waits for a promotion; it
// is sent to no standby twice.
func TestSerializableWhileWritesGoToAStandby(t *testing.T) {
	t.Parallel()
	ctx := within(t, 100*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 2})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	alone := dbsplit.Nodes{Primary: c.Replica(0).URL("postgres")}
	both := dbsplit.Nodes{Primary: alone.Primary, Replicas: []string{c.Replica(1).URL("postgres")}}
	ways := map[string]func(ctx context.Context, r *dbsplit.Reader) error{
		"Exec": func(ctx context.Context, r *dbsplit.Reader) error {
			_, err := r.Exec(ctx, "begin isolation level serializable; select 1; commit")
			return err
		},
		"BeginTx": func(ctx context.Context, r *dbsplit.Reader) error {
			return pgx.BeginTxFunc(ctx, r, pgx.TxOptions{IsoLevel: pgx.Serializable}, func(pgx.Tx) error { return nil })
		},
	}
	// read counts how often a read is sent, and ends it when that is beyond all bounds.
	read := func(db *dbsplit.DB, way string, opts ...dbsplit.ReadOption) (sent int64, err error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var n atomic.Int64
		err = ways[way](ctx, db.Read(append(opts, dbsplit.OnRoute(func(dbsplit.Provenance) {
			if n.Add(1) == 100 {
				cancel()
			}
		}))...))
		return n.Load(), err
	}
	type result struct {
		name string
		sent int64
		err  error
	}
	results := make(chan result, 2*len(ways))
	var waiting []*dbsplit.DB
	for name, nodes := range map[string]dbsplit.Nodes{"without a replica": alone, "with one": both} {
		for _, wait := range []time.Duration{-1, 300 * time.Millisecond, time.Minute} {
			db := run(t, nodes, &dbsplit.Options{FailoverWait: wait})
			await(t, db, "the probes", func() bool {
				return !slices.ContainsFunc(db.Nodes(), func(n dbsplit.NodeStatus) bool { return !n.Up || n.Role != "replica" })
			})
			if wait == time.Minute {
				waiting = append(waiting, db)
				for way := range ways {
					go func() {
						sent, err := read(db, way)
						results <- result{name + ", " + way, sent, err}
					}()
				}
				continue
			}
			for way := range ways {
				begun := time.Now()
				sent, err := read(db, way)
				if took := time.Since(begun); !errors.Is(err, dbsplit.ErrNoNode) || sent > int64(len(db.Nodes())) || took < wait {
					t.Errorf("%s, %s, with %v: sent %d times, %v after %v", name, way, wait, sent, err, took)
				}
			}
		}
	}
	for _, db := range waiting {
		await(t, db, "the reads to wait", func() bool { return db.Orphans() == int64(len(ways)) || len(results) > 0 })
		if len(db.Nodes()) > 1 {
			if sent, err := read(db, "Exec", dbsplit.FallBack(dbsplit.FallbackNone)); !errors.Is(err, dbsplit.ErrNoNode) || sent > 2 {
				t.Errorf("a read that spares the primary: sent %d times, %v", sent, err)
			}
		}
	}
	must(t, c.Replica(0).Promote(ctx))
	for range cap(results) {
		if r := <-results; r.err != nil || r.sent > 3 {
			t.Errorf("%s: sent %d times, %v", r.name, r.sent, r.err)
		}
	}
}
