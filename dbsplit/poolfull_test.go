package dbsplit_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgbouncer"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// fill takes every connection of the reading pools of the nodes given, by reads that do not end by themselves.
func fill(t *testing.T, db *dbsplit.DB, c *pgcluster.Cluster, database string, each int, nodes ...int) (ends func() []error) {
	t.Helper()
	ctx := within(t, 90*time.Second)
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	for _, n := range nodes {
		read := db.Read(dbsplit.OnNode(db.Nodes()[n].Name))
		for range each {
			wg.Go(func() {
				err := read.QueryRow(ctx, "select 'full', pg_sleep(80)").Scan(nil, nil)
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			})
		}
	}
	for _, n := range nodes {
		observer, err := c.Servers()[n].Connect(ctx, database)
		must(t, err)
		defer observer.Close(context.Background())
		await(t, db, "the reads to be old", func() bool {
			return each == get[int](t, ctx, observer, `select count(*)::int from pg_stat_activity where query like '%''full''%' and pid <> pg_backend_pid()
				and state = 'active' and query_start < clock_timestamp() - interval '1.1s'`)
		})
	}
	return func() []error { wg.Wait(); return errs }
}

// The reads that fill a pool are those to be cancelled: it must not take one of its connections to do that.
func TestCancelWhenReadPoolIsFull(t *testing.T) {
	db, c, database := settled(t, &dbsplit.Options{MaxConns: 2})
	ends := fill(t, db, c, database, 2, 1, 2)
	reports, err := db.CancelLongRunning(within(t, 60*time.Second), dbsplit.CancelOptions{OlderThan: time.Second})
	must(t, err)
	cancelled := 0
	for _, r := range reports {
		if r.Error != "" {
			t.Errorf("%s: %s", r.Node, r.Error)
		}
		for _, s := range r.Statements {
			if s.Result == "cancelled" {
				cancelled++
			}
		}
	}
	if cancelled != 4 {
		t.Fatalf("%d of 4 reads were cancelled: %+v", cancelled, reports)
	}
	for _, err := range ends() {
		if err == nil || !strings.Contains(err.Error(), "57014") {
			t.Errorf("a read ended with %v", err)
		}
	}
}

// Whoever looks into why the pools are full is answered.
func TestOperationsWhenReadPoolsAreFull(t *testing.T) {
	db, c, database := settled(t, &dbsplit.Options{MaxConns: 2})
	exec(t, db, "create table t (n int)")
	exec(t, db, "create extension pg_stat_statements")
	ctx := within(t, 60*time.Second)
	for _, s := range c.Servers()[1:] {
		must(t, s.WaitCaughtUp(ctx))
	}
	ends := fill(t, db, c, database, 2, 0, 1, 2)
	slow, err := db.SlowQueries(ctx, time.Hour, 10)
	must(t, err)
	for _, n := range slow.Nodes {
		if n.Unavailable != "" {
			t.Errorf("slow queries of %s: %s", n.Node, n.Unavailable)
		}
	}
	if r, err := db.Sizes(ctx, time.Hour, 10); err != nil || r.Count != 1 {
		t.Errorf("sizes: %+v, %v", r, err)
	}
	if r, err := db.Replication(ctx); err != nil || r.Unavailable != "" || len(r.Streams) != 2 {
		t.Errorf("replication: %+v, %v", r, err)
	}
	if r, err := db.OptimizeTable(ctx, "t", dbsplit.OptimizeOptions{}); err != nil || r.After.Vacuums != 1 {
		t.Errorf("optimize: %+v, %v", r, err)
	}
	_, err = db.CancelLongRunning(ctx, dbsplit.CancelOptions{OlderThan: time.Second})
	must(t, err)
	ends()
	for _, s := range c.Servers() {
		observer, err := s.Connect(ctx, database)
		must(t, err)
		defer observer.Close(context.Background())
		await(t, db, "the operations' sessions to end", func() bool {
			return 2 >= get[int](t, ctx, observer, "select count(*)::int from pg_stat_activity where application_name in ('db reads', 'db optimize')")
		})
	}
}

// A server that takes no more connections is not one that does not answer: one that is idle in the pool will do, and when
// there is none the report says what is wrong.
func TestOperationsWhenTheServerIsFull(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	ctx := within(t, 60*time.Second)
	super, err := c.Primary().Connect(ctx, database)
	must(t, err)
	defer super.Close(context.Background())
	exec(t, super, "drop role if exists crowded")
	exec(t, super, "create role crowded login connection limit 1")
	url := strings.Replace(c.Primary().URL(database), "postgres@", "crowded@", 1)
	db := open(t, dbsplit.Nodes{Primary: url}, nil)
	get[int](t, ctx, db.Read(), "select 1") // this connection is idle now
	look := func() dbsplit.CancelReport {
		reports, err := db.CancelLongRunning(ctx, dbsplit.CancelOptions{DryRun: true})
		must(t, err)
		return reports[0]
	}
	if r := look(); r.Error != "" {
		t.Errorf("with an idle connection in the pool: %s", r.Error)
	}
	full, err := db.Acquire(ctx)
	if err == nil {
		full.Release()
		t.Fatal("the role got two connections: this test tests nothing")
	}
	db.Close()
	db = open(t, dbsplit.Nodes{Primary: url}, nil)
	var other *pgx.Conn
	await(t, db, "the pool's session to end", func() bool {
		other, err = pgx.Connect(ctx, url)
		return err == nil
	})
	defer other.Close(context.Background())
	if r := look(); !strings.Contains(r.Error, "takes no more connections") {
		t.Errorf("with no connection: %q", r.Error)
	}
	s := listener(t, db)
	call(t, s, "GET", path+"sizes", "").wants(t, 503, "takes no more connections")
	call(t, s, "POST", path+"optimize-table/t", "").wants(t, 503, "takes no more connections")
}

// Through a pooler in transaction mode operations that look work as well, with the pools full.
func TestOperationsWhenPoolsBehindPoolerAreFull(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	nodes, _ := behind(t, c, database, "&node_pooler=transaction", pgbouncer.Options{Mode: pgbouncer.Transaction})
	db := run(t, nodes, &dbsplit.Options{MaxConns: 2, Name: "behind"})
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	exec(t, db, "create table t (n int); create extension pg_stat_statements")
	ctx := within(t, 60*time.Second)
	for _, s := range c.Servers()[1:] {
		must(t, s.WaitCaughtUp(ctx))
	}
	ends := fill(t, db, c, database, 2, 0, 1, 2)
	if slow, err := db.SlowQueries(ctx, time.Hour, 10); err != nil || slow.Nodes[0].Unavailable+slow.Nodes[1].Unavailable+slow.Nodes[2].Unavailable != "" {
		t.Errorf("slow queries: %+v, %v", slow, err)
	}
	if r, err := db.Sizes(ctx, time.Hour, 10); err != nil || r.Count != 1 {
		t.Errorf("sizes: %+v, %v", r, err)
	}
	if r, err := db.Replication(ctx); err != nil || r.Unavailable != "" || len(r.Streams) != 2 {
		t.Errorf("replication: %+v, %v", r, err)
	}
	reports, err := db.CancelLongRunning(ctx, dbsplit.CancelOptions{OlderThan: time.Second})
	must(t, err)
	for _, r := range reports {
		if r.Error != "" || len(r.Statements) != 2 || r.Statements[0].Result != "cancelled" || r.Statements[0].Seconds < 1 {
			t.Errorf("%+v", r)
		}
	}
	ends()
}
