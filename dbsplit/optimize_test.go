package dbsplit_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

func TestOptimizeTable(t *testing.T) {
	t.Parallel()
	g := new(gate)
	db, c, database := settled(t, &dbsplit.Options{Gate: g})
	s := listener(t, db)
	exec(t, db, `create table "Lead" (n int primary key) with (autovacuum_enabled = off)`)
	exec(t, db, `create table event (n int)`)
	exec(t, db, `create schema other; create table other."odd ""name" (n int)`)
	exec(t, db, `insert into "Lead" select generate_series(1, 1000)`)
	// One message, so one session: otherwise its statistics may come after the VACUUM.
	exec(t, db, `delete from "Lead"; select pg_stat_force_next_flush()`)
	type outcome struct {
		State  string                 `json:"state"`
		Result dbsplit.OptimizeReport `json:"result"`
	}
	for _, name := range []string{"Lead", `"Lead"`, "public.Lead", "Event", `other."odd ""name"`} {
		started := decode[admin.Started](t, call(t, s, "POST", path+"optimize-table/"+url.PathEscape(name)+"?reindex=true", ""), 202)
		var done outcome
		await(t, db, "the end of "+name, func() bool {
			done = decode[outcome](t, call(t, s, "GET", started.Status, ""), 200)
			return done.State != "running"
		})
		if r := done.Result; name == "Lead" && r.Before.DeadRows != 1000 {
			t.Errorf("%d dead rows before: this test tests nothing", r.Before.DeadRows)
		}
		if r := done.Result; done.State != "done" || r.After.Vacuums <= r.Before.Vacuums || len(r.Done) != 2 {
			t.Errorf("%s: %+v", name, done)
		}
	}
	if n := get[int64](t, within(t, 5*time.Second), db, `select n_dead_tup from pg_stat_all_tables where relname = 'Lead'`); n != 0 {
		t.Errorf("%d dead rows are left", n)
	}
	for name, want := range map[string]answer{
		"lead":      {404, "no table lead"},
		`"EVENT"`:   {404, "no table"},
		"a.b.c":     {400, "schema.table"},
		`"Lead`:     {400, "closing double quote"},
		"pg_class":  {400, "system table"},
		`Lead;drop`: {404, "no table"},
	} {
		call(t, s, "POST", path+"optimize-table/"+url.PathEscape(name), "").wants(t, want.status, want.body)
	}
	before := get[int64](t, t.Context(), db, "select vacuum_count from pg_stat_all_tables where relname = 'event'")
	call(t, s, "POST", path+"optimize-table/event?dry_run=true", "").wants(t, 200, "VACUUM (ANALYZE)")
	g.set(errMaintenance)
	call(t, s, "POST", path+"optimize-table/event", "").wants(t, 503, "read-only")
	g.set(nil)
	if after := get[int64](t, t.Context(), db, "select vacuum_count from pg_stat_all_tables where relname = 'event'"); after != before {
		t.Error("a dry run, or read-only mode, vacuumed")
	}

	// PostgreSQL only warns a role that does not own the table, and skips it.
	exec(t, db, "do $$ begin create role stranger login; exception when duplicate_object then null; end $$")
	guest := open(t, dbsplit.Nodes{Primary: strings.Replace(c.Primary().URL(database), "postgres@", "stranger@", 1)}, nil)
	if _, err := guest.OptimizeTable(within(t, 10*time.Second), "event", dbsplit.OptimizeOptions{}); err == nil || !strings.Contains(err.Error(), "belongs to another role") {
		t.Errorf("a stranger's optimize: %v", err)
	}
	// A lock is not waited for.
	tx, err := db.Begin(t.Context())
	must(t, err)
	defer tx.Rollback(context.Background())
	exec(t, tx, "lock table event in access exclusive mode")
	if _, err := db.OptimizeTable(within(t, 10*time.Second), "event", dbsplit.OptimizeOptions{}); err == nil || !strings.Contains(err.Error(), "lock") {
		t.Errorf("optimize of a locked table: %v", err)
	}
}

// as makes a role, which outlives the test's database, and opens a DB for it.
func as(t testing.TB, superuser *dbsplit.DB, c *pgcluster.Cluster, database, role string) *dbsplit.DB {
	t.Helper()
	exec(t, superuser, "do $$ begin create role "+role+" login; exception when duplicate_object or unique_violation then null; end $$")
	return open(t, dbsplit.Nodes{Primary: strings.Replace(c.Primary().URL(database), "postgres@", role+"@", 1)}, nil)
}

// Whoever owns the database may VACUUM its tables, but REINDEX only those that are theirs: nothing is done by halves.
func TestOptimizeTableAsOthers(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	db := open(t, dbsplit.Nodes{Primary: c.Primary().URL(database)}, nil)
	janitor := as(t, db, c, database, "janitor")
	exec(t, db, "alter database "+database+" owner to janitor")
	exec(t, db, "create table theirs (n int primary key)")
	exec(t, db, "create table mine (n int primary key); alter table mine owner to janitor")
	ctx := within(t, 20*time.Second)
	vacuums := func(table string) int64 {
		return get[int64](t, ctx, db, "select vacuum_count from pg_stat_all_tables where relname = $1", table)
	}
	reindex := dbsplit.OptimizeOptions{Reindex: true}

	if _, err := janitor.OptimizeTable(ctx, "theirs", reindex); err == nil || !strings.Contains(err.Error(), "without reindex") {
		t.Errorf("a reindex of another's table: %v", err)
	}
	call(t, listener(t, janitor), "POST", path+"optimize-table/theirs?reindex=true&dry_run=true", "").wants(t, 409, "without reindex")
	if n := vacuums("theirs"); n != 0 {
		t.Errorf("it was refused after %d VACUUMs", n)
	}
	if _, err := janitor.OptimizeTable(ctx, "theirs", dbsplit.OptimizeOptions{}); err != nil || vacuums("theirs") != 1 {
		t.Errorf("a VACUUM by the database's owner: %v, %d times", err, vacuums("theirs"))
	}
	if _, err := janitor.OptimizeTable(ctx, "mine", reindex); err != nil || vacuums("mine") != 1 {
		t.Errorf("by the table's owner: %v", err)
	}

	if get[int](t, ctx, db, "select current_setting('server_version_num')::int") < 170000 {
		return // there is no privilege to MAINTAIN
	}
	maintainer := as(t, db, c, database, "maintainer")
	exec(t, db, "grant maintain on theirs to maintainer")
	if _, err := maintainer.OptimizeTable(ctx, "theirs", reindex); err != nil || vacuums("theirs") != 2 {
		t.Errorf("with MAINTAIN: %v", err)
	}
	exec(t, db, "revoke maintain on mine from janitor")
	if _, err := janitor.OptimizeTable(ctx, "mine", reindex); err == nil || vacuums("mine") != 1 {
		t.Errorf("by an owner who has given MAINTAIN away: %v", err)
	}
}

// Making a partition is for the parent's owner: the database's is told so before anything is tried.
func TestEnsurePartitionsAsTheDatabasesOwner(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	db := open(t, dbsplit.Nodes{Primary: c.Primary().URL(database)}, nil)
	janitor := as(t, db, c, database, "janitor")
	exec(t, db, "alter database "+database+" owner to janitor")
	exec(t, db, "create table event (d date) partition by range (d)")
	for _, dry := range []bool{true, false} {
		if _, err := janitor.EnsurePartitions(within(t, 20*time.Second), "event", 1, dry); err == nil || !strings.Contains(err.Error(), "belongs to another role") {
			t.Errorf("dry run %v: %v", dry, err)
		}
	}
}

// A partitioned table is done with all its partitions; one of another's is an error and no silence.
func TestOptimizePartitionedTable(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	db := open(t, dbsplit.Nodes{Primary: c.Primary().URL(database)}, nil)
	owner := as(t, db, c, database, "stranger")
	exec(t, db, "create table event (d date primary key) partition by range (d)")
	exec(t, db, "create table event_1 partition of event for values from ('2024-01-01') to ('2024-02-01')")
	exec(t, db, "create table event_2 partition of event for values from ('2024-02-01') to ('2024-03-01')")
	ctx := within(t, 30*time.Second)
	r, err := db.OptimizeTable(ctx, "event", dbsplit.OptimizeOptions{Reindex: true})
	if err != nil || r.After.Vacuums != r.Before.Vacuums+2 || r.After.BadIndexes != 0 || r.After.Indexes != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	exec(t, db, "alter table event owner to stranger; alter table event_1 owner to stranger")
	if _, err := owner.OptimizeTable(ctx, "event", dbsplit.OptimizeOptions{}); err == nil || !strings.Contains(err.Error(), "event_2") {
		t.Errorf("a partition of another's was skipped in silence: %v", err)
	}
}

// What the server warns of when a session begins is not about the work.
func TestOptimizeTableAfterAWarningAtTheStart(t *testing.T) {
	t.Parallel()
	ctx := within(t, 20*time.Second)
	c := shared.Get(t)
	database := c.Database(t)
	db := open(t, dbsplit.Nodes{Primary: c.Primary().URL(database)}, nil)
	exec(t, db, "create table t (n int primary key)")
	must(t, c.Primary().Exec(ctx, "update pg_database set datcollversion = 'of another system' where datname = '"+database+"'"))
	r, err := db.OptimizeTable(ctx, "t", dbsplit.OptimizeOptions{Reindex: true})
	if err != nil || r.After.Vacuums != r.Before.Vacuums+1 {
		t.Errorf("%+v, %v", r, err)
	}
}
