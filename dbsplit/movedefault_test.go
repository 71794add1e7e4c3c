package dbsplit_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/dbsplit"
)

// finished waits for the end of a background operation and returns its result.
func finished[T any](t testing.TB, db *dbsplit.DB, call func(path string) answer, started admin.Started) T {
	t.Helper()
	var done struct {
		State  string `json:"state"`
		Error  any    `json:"error"`
		Result T      `json:"result"`
	}
	await(t, db, "the end of "+started.Status, func() bool {
		done = decode[struct {
			State  string `json:"state"`
			Error  any    `json:"error"`
			Result T      `json:"result"`
		}](t, call(started.Status), 200)
		return done.State != "running"
	})
	if done.State != "done" {
		t.Fatalf("%s: %+v", started.Status, done)
	}
	return done.Result
}

func TestMoveDefaultRows(t *testing.T) {
	t.Parallel()
	g := new(gate)
	db, _, database := settled(t, &dbsplit.Options{Gate: g})
	s := listener(t, db)
	ctx := within(t, 30*time.Second)
	exec(t, db, "alter database "+database+" set timezone = 'America/New_York'")
	exec(t, db, `create table "Event" (gone int, id bigint generated always as identity, "at" timestamptz, "twice" bigint generated always as (n * 2) stored, n bigint) partition by range ("at")`)
	exec(t, db, `alter table "Event" drop column gone`)
	exec(t, db, `create index on "Event" (n)`)
	exec(t, db, `create table "Event_2024_05" partition of "Event" for values from ('2024-05-01 00:00:00+00') to ('2024-06-01 00:00:00+00')`)
	exec(t, db, `create table "Event_rest" (n bigint, "at" timestamptz, id bigint not null, "twice" bigint generated always as (n * 2) stored)`)
	exec(t, db, `alter table "Event" attach partition "Event_rest" default`)
	exec(t, db, `insert into "Event" ("at", n) select '2024-01-31 23:59:59.999999+00', n from generate_series(1, 3) n`)
	exec(t, db, `insert into "Event" ("at", n) values ('2024-02-01 00:00:00+00', 4), ('0800-06-01 00:00:00+00', 5), ('infinity', 6), (null, 7), ('10001-01-01', 8), ('2024-05-05', 9)`)
	const content = `select string_agg(concat_ws('/', id, "at" at time zone 'UTC', n, "twice"), ' ' order by id) from "Event"`
	before := get[string](t, ctx, db, content)
	move := path + "partitions/Event/move-default"
	tables := func() int {
		return get[int](t, ctx, db, `select count(*)::int from pg_class where relkind in ('r', 'p') and relname like 'Event%'`)
	}

	dry := decode[dbsplit.MoveReport](t, call(t, s, "POST", move+"?dry_run=true", ""), 200)
	if len(dry.Months) != 3 || dry.Months[1].Rows != 3 || dry.Months[2].Rows != 1 || dry.Left != 3 || dry.Count != 0 || dry.Months[1].Result != "dry-run" {
		t.Errorf("dry run: %+v", dry)
	}
	g.set(errMaintenance)
	call(t, s, "POST", move, "").wants(t, 503, "read-only")
	g.set(nil)
	call(t, s, "POST", move+"?max_rows=0", "").wants(t, 400, "max_rows")
	call(t, s, "POST", move+"?timeout=0s", "").wants(t, 400, "timeout")
	call(t, s, "POST", path+"partitions/nothing/move-default", "").wants(t, 404, "no table")
	exec(t, db, `create function note() returns trigger language plpgsql as 'begin return old; end'`)
	exec(t, db, `create trigger "on" after delete on "Event" for each row execute function note()`)
	call(t, s, "POST", move, "").wants(t, 409, "would fire its triggers")
	exec(t, db, `alter table "Event_rest" disable trigger "on"`)
	exec(t, db, `create table "Event_2024_01" ()`)
	call(t, s, "POST", move, "").wants(t, 409, "is no partition")
	exec(t, db, `drop table "Event_2024_01"`)
	if n := tables(); n != 3 || get[string](t, ctx, db, content) != before {
		t.Errorf("dry runs and refusals left %d tables", n)
	}

	over := finished[dbsplit.MoveReport](t, db, func(p string) answer { return call(t, s, "GET", p, "") },
		decode[admin.Started](t, call(t, s, "POST", move+"?max_rows=2", ""), 202))
	if m := over.Months; over.Count != 2 || m[0].Result != "moved" || m[1].Result != "refused" || !strings.Contains(m[1].Reason, "max_rows") || m[2].Result != "moved" {
		t.Errorf("at most 2 rows a month: %+v", over)
	}
	r := finished[dbsplit.MoveReport](t, db, func(p string) answer { return call(t, s, "GET", p, "") },
		decode[admin.Started](t, call(t, s, "POST", move, ""), 202))
	if r.Count != 3 || len(r.Months) != 1 || r.Left != 3 {
		t.Errorf("moved %+v", r)
	}
	if after := get[string](t, ctx, db, content); after != before {
		t.Errorf("the table was\n%s and is\n%s", before, after)
	}
	for table, want := range map[string]int{`"Event_0800_06"`: 1, `"Event_2024_01"`: 3, `"Event_2024_02"`: 1, `"Event_2024_05"`: 1, `"Event_rest"`: 3} {
		if n := get[int](t, ctx, db, "select count(*)::int from "+table); n != want {
			t.Errorf("%s has %d rows, want %d", table, n, want)
		}
	}
	if n := get[int](t, ctx, db, `select count(*)::int from pg_inherits i join pg_class c on c.oid = i.inhrelid where c.relkind = 'i'`); n != 5 {
		t.Errorf("%d of 5 partitions have the parent's index", n)
	}
	exec(t, db, `insert into "Event" ("at", n) values ('2024-01-15', 10)`)
	if n := get[int](t, ctx, db, `select count(*)::int from "Event_2024_01"`); n != 4 {
		t.Errorf("a new row did not go to the new partition: %d", n)
	}
	exec(t, db, "create table bare (d date) partition by range (d)")
	if r, err := db.MoveDefaultRows(ctx, "bare", dbsplit.MoveOptions{}); err != nil || r.Default != "" || len(r.Months) != 0 {
		t.Errorf("without a default partition: %+v, %v", r, err)
	}
}

// Moving a row is a DELETE to a foreign key, which might cascade.
func TestMoveDefaultRowsSparesReferences(t *testing.T) {
	t.Parallel()
	db, _, _ := settled(t, nil)
	exec(t, db, `create table event (id int, d date, primary key (id, d)) partition by range (d)`)
	exec(t, db, `create table event_default partition of event default`)
	exec(t, db, `create table note (id int, d date, foreign key (id, d) references event on delete cascade)`)
	exec(t, db, `insert into event values (1, '2024-01-01')`)
	exec(t, db, `insert into note values (1, '2024-01-01')`)
	ctx := within(t, 20*time.Second)
	if _, err := db.MoveDefaultRows(ctx, "event", dbsplit.MoveOptions{}); err == nil || !strings.Contains(err.Error(), "foreign keys of note") {
		t.Errorf("a referenced table: %v", err)
	}
	if n := get[int](t, ctx, db, "select count(*)::int from note"); n != 1 {
		t.Error("a referring row was deleted")
	}
}

// Writers lose no row and are refused none, and readers on each server see every row exactly once, while months are moved.
func TestMoveDefaultRowsUnderLoad(t *testing.T) {
	db, c, database := settled(t, &dbsplit.Options{MaxConns: 10})
	const months, settledRows, aside = 6, 600, 50_000
	exec(t, db, `create table event (id bigint, d date) partition by range (d)`)
	exec(t, db, `create table event_default partition of event default`)
	exec(t, db, `insert into event select -n, null from generate_series(1, $1::int) n`, aside) // ATTACH has to search them
	exec(t, db, `insert into event select n, date '2020-01-15' + (n % $2) * interval '1 month' from generate_series(1, $1::int) n`, settledRows, months)
	ctx, cancel := context.WithCancel(within(t, 90*time.Second))
	defer cancel()
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	var wg sync.WaitGroup
	var next, reads, written atomic.Int64
	next.Store(settledRows)
	ledger := make([][]int64, 3)
	for w := range ledger {
		wg.Go(func() {
			for ctx.Err() == nil {
				id := next.Add(1)
				_, err := db.Exec(context.Background(), "insert into event values ($1, date '2020-01-20' + $2::int * interval '1 month')", id, id%months)
				if err != nil {
					t.Errorf("a writer: %v", err)
					return
				}
				ledger[w] = append(ledger[w], id)
				written.Add(1)
			}
		})
	}
	for _, server := range c.Servers() {
		for range 2 {
			conn, err := server.Connect(ctx, database)
			must(t, err)
			wg.Go(func() {
				defer conn.Close(context.Background())
				for ctx.Err() == nil {
					var n, distinct int
					err := conn.QueryRow(context.Background(), "select count(*), count(distinct id) from event where id between 1 and $1", settledRows).Scan(&n, &distinct)
					if pgErr, ok := err.(*pgconn.PgError); ok && pgErr.Code == "40001" {
						continue // a replica's replay was in the way, and the read says so
					}
					if err != nil || n != settledRows || distinct != settledRows {
						t.Errorf("a reader of %s saw %d rows, %d of %d ones: %v", server.Name(), n, distinct, settledRows, err)
						return
					}
					reads.Add(1)
				}
			})
		}
	}
	await(t, db, "readers and writers", func() bool { return reads.Load() > 20 && written.Load() > 20 || t.Failed() })
	moved := 0
	for range 20 { // a busy machine may keep a lock away each time: then the call is made again
		r, err := db.MoveDefaultRows(ctx, "event", dbsplit.MoveOptions{})
		if err != nil && !strings.Contains(err.Error(), "was locked in each") {
			t.Fatal(err)
		} else if err == nil {
			moved = len(r.Months)
			break
		}
	}
	read, wrote := reads.Load(), written.Load()
	await(t, db, "reads and writes after the move", func() bool { return reads.Load() > read+20 && written.Load() > wrote+20 || t.Failed() })
	cancel()
	wg.Wait()
	ctx = within(t, 20*time.Second)
	if n := get[int](t, ctx, db, "select count(*)::int from pg_inherits where inhparent = 'event'::regclass"); moved == 0 || n != months+1 {
		t.Errorf("%d partitions were made", n-1)
	}
	if n := get[int](t, ctx, db, "select count(*)::int from event_default"); n != aside {
		t.Errorf("%d rows are left in the default partition", n-aside)
	}
	var all []int64
	for _, ids := range ledger {
		all = append(all, ids...)
	}
	var found, distinct int
	must(t, db.QueryRow(ctx, "select count(*), count(distinct id) from event where id = any($1)", all).Scan(&found, &distinct))
	if found != len(all) || distinct != len(all) {
		t.Errorf("of %d acknowledged rows %d are there, %d of them once", len(all), found, distinct)
	}
}

// A move that is killed leaves nothing half done, and can be done again.
func TestMoveDefaultRowsKilled(t *testing.T) {
	t.Parallel()
	db, _, database := settled(t, nil)
	exec(t, db, `create table event (id int, d date) partition by range (d)`)
	exec(t, db, `create table event_default partition of event default`)
	exec(t, db, `insert into event select n, '2024-03-03' from generate_series(1, 100) n`)
	ctx := within(t, 30*time.Second)
	tx, err := db.Begin(ctx)
	must(t, err)
	defer tx.Rollback(context.Background())
	exec(t, tx, "select from event limit 1") // a reader, whom the last step waits for
	result := make(chan error, 1)
	go func() {
		_, err := db.MoveDefaultRows(ctx, "event", dbsplit.MoveOptions{})
		result <- err
	}()
	await(t, db, "the move to wait for the reader", func() bool {
		return get[int](t, ctx, db, `select count(pg_terminate_backend(pid))::int from pg_stat_activity
			where datname = $1 and application_name = 'db partitions' and wait_event_type = 'Lock' and query like 'lock table%access exclusive%'`, database) == 1
	})
	if err := <-result; err == nil {
		t.Error("a killed move succeeded")
	}
	exec(t, tx, "rollback")
	await(t, db, "the end of the killed session", func() bool {
		return get[bool](t, ctx, db, `select not exists (select from pg_stat_activity where datname = $1 and application_name = 'db partitions')`, database)
	})
	if n := get[int](t, ctx, db, "select count(*)::int from event_default"); n != 100 || get[*string](t, ctx, db, "select to_regclass('event_2024_03')::text") != nil {
		t.Errorf("the killed move left %d of 100 rows, or a table", n)
	}
	if r, err := db.MoveDefaultRows(ctx, "event", dbsplit.MoveOptions{}); err != nil || r.Count != 100 {
		t.Errorf("again: %+v, %v", r, err)
	}
}

// One runner at a time; and a table that is locked for long is given up, with advice.
func TestPartitionsSingleRunner(t *testing.T) {
	t.Parallel()
	db, _, _ := settled(t, nil)
	exec(t, db, `create table event (id int, d date) partition by range (d)`)
	exec(t, db, `create table event_default partition of event default`)
	exec(t, db, `create table event_2020_01 partition of event for values from ('2020-01-01') to ('2020-02-01')`)
	exec(t, db, `insert into event values (1, '2024-03-03')`)
	ctx := within(t, 60*time.Second)
	tx, err := db.Begin(ctx)
	must(t, err)
	defer tx.Rollback(context.Background())
	exec(t, tx, fmt.Sprintf("select pg_advisory_xact_lock(%d, 'event'::regclass::oid::int)", 0x5ca1ea))
	calls := map[string]func() error{
		"premake": func() error { _, err := db.EnsurePartitions(ctx, "event", 1, false); return err },
		"move":    func() error { _, err := db.MoveDefaultRows(ctx, "event", dbsplit.MoveOptions{}); return err },
		"detach": func() error {
			_, err := db.DetachPartitions(ctx, "event", dbsplit.DetachOptions{KeepMonths: 1})
			return err
		},
	}
	for name, do := range calls {
		if err := do(); err == nil || !strings.Contains(err.Error(), "another run") {
			t.Errorf("%s beside another run: %v", name, err)
		}
	}
	exec(t, tx, "rollback")
	tx, err = db.Begin(ctx)
	must(t, err)
	defer tx.Rollback(context.Background())
	exec(t, tx, "select from event limit 1")
	for _, name := range []string{"move", "detach"} {
		if err := calls[name](); err == nil || !strings.Contains(err.Error(), "locked in each of 5 tries") {
			t.Errorf("%s beside a long transaction: %v", name, err)
		}
	}
	exec(t, tx, "rollback")
	for name, do := range calls {
		if err := do(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
