package dbsplit_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// monthly makes partitions of event for the months from..to, counted from the present one, with one row each.
func monthly(t testing.TB, db *dbsplit.DB, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		first := monthFrom(i)
		exec(t, db, fmt.Sprintf("create table %s partition of event for values from ('%s') to ('%s')",
			first.Format("event_2006_01"), first.Format(time.DateOnly), first.AddDate(0, 1, 0).Format(time.DateOnly)))
		exec(t, db, "insert into event values ($1)", first)
	}
}

// monthFrom is the beginning of a month, counted from the present one.
func monthFrom(i int) time.Time {
	now := time.Now().UTC()
	return time.Date(now.Year(), now.Month()+time.Month(i), 1, 0, 0, 0, 0, time.UTC)
}

func partitionNames(t testing.TB, db *dbsplit.DB) (names []string) {
	t.Helper()
	r, err := db.Partitions(within(t, 20*time.Second), "event")
	must(t, err)
	for _, p := range r.Partitions {
		names = append(names, p.Name)
	}
	return names
}

func TestRetain(t *testing.T) {
	t.Parallel()
	g := new(gate)
	db, _, _ := settled(t, &dbsplit.Options{Gate: g})
	s := listener(t, db)
	ctx := within(t, 30*time.Second)
	exec(t, db, "create table event (d date) partition by range (d)")
	exec(t, db, "create table event_old partition of event for values from (minvalue) to ('"+monthFrom(-6).Format(time.DateOnly)+"')")
	exec(t, db, "create table event_rest partition of event for values from ('"+monthFrom(2).Format(time.DateOnly)+"') to (maxvalue)")
	// It begins before the kept range and reaches into it.
	exec(t, db, "create table event_half partition of event for values from ('"+monthFrom(-2).Format(time.DateOnly)+"') to ('"+monthFrom(-1).AddDate(0, 0, 3).Format(time.DateOnly)+"')")
	monthly(t, db, -6, -3)
	monthly(t, db, 0, 1)
	retain := path + "partitions/event/retain"

	call(t, s, "POST", retain, "").wants(t, 400, "keep")
	call(t, s, "POST", retain+"?keep=0", "").wants(t, 400, "keep")
	call(t, s, "POST", retain+"?keep=1&drop=true", "").wants(t, 400, "confirm")
	g.set(errMaintenance)
	call(t, s, "POST", retain+"?keep=1", "").wants(t, 503, "read-only")
	g.set(nil)
	dry := decode[dbsplit.DetachReport](t, call(t, s, "POST", retain+"?keep=1&drop=true&dry_run=true", ""), 200)
	if len(dry.Partitions) != 5 || dry.Count != 0 || dry.Partitions[0].Name != "event_old" || dry.Partitions[0].Result != "dry-run" {
		t.Errorf("dry run: %+v", dry)
	}
	if n := len(partitionNames(t, db)); n != 9 {
		t.Fatalf("refusals and a dry run left %d of 9 partitions", n)
	}

	r := decode[dbsplit.DetachReport](t, call(t, s, "POST", retain+"?keep=4", ""), 200)
	if r.Count != 3 || !r.KeptFrom.Equal(monthFrom(-4)) {
		t.Errorf("keep 4: %+v", r)
	}
	for _, p := range r.Partitions {
		if p.Result != "detached" || get[int](t, ctx, db, "select count(*)::int from pg_class where oid = to_regclass($1)", p.Detached) != 1 {
			t.Errorf("%+v is not there any more", p)
		}
	}
	if n := get[int](t, ctx, db, "select count(*)::int from event"); n != 4 {
		t.Errorf("the table has %d of 4 rows", n)
	}
	r = decode[dbsplit.DetachReport](t, call(t, s, "POST", retain+"?keep=1&drop=true&confirm=true", ""), 200)
	if r.Count != 2 || r.Partitions[1].Result != "dropped" || get[*string](t, ctx, db, "select to_regclass($1)::text", r.Partitions[1].Detached) != nil {
		t.Errorf("drop: %+v", r)
	}
	want := fmt.Sprint([]string{"event_half", monthFrom(0).Format("event_2006_01"), monthFrom(1).Format("event_2006_01"), "event_rest"})
	if names := partitionNames(t, db); fmt.Sprint(names) != want {
		t.Errorf("kept %v, want %v", names, want)
	}
	if r, err := db.DetachPartitions(ctx, "event", dbsplit.DetachOptions{KeepMonths: 1}); err != nil || r.Count != 0 {
		t.Errorf("again: %+v, %v", r, err)
	}
}

// Beside a default partition PostgreSQL refuses CONCURRENTLY, so readers have to let the detach through.
func TestRetainBesideADefault(t *testing.T) {
	t.Parallel()
	db, _, _ := settled(t, nil)
	ctx := within(t, 30*time.Second)
	exec(t, db, "create table event (d date) partition by range (d)")
	exec(t, db, "create table event_default partition of event default")
	monthly(t, db, -4, 0)
	exec(t, db, "insert into event values ('2000-01-01')")
	tx, err := db.Begin(ctx)
	must(t, err)
	defer tx.Rollback(context.Background())
	exec(t, tx, "select from event limit 1")
	type outcome struct {
		r   *dbsplit.DetachReport
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := db.DetachPartitions(ctx, "event", dbsplit.DetachOptions{KeepMonths: 2, Drop: true})
		done <- outcome{r, err}
	}()
	await(t, db, "the detach to wait", func() bool {
		return get[bool](t, ctx, db, "select exists (select from pg_locks where relation = 'event'::regclass and mode = 'AccessExclusiveLock' and not granted)")
	})
	exec(t, tx, "rollback")
	if o := <-done; o.err != nil || o.r.Count != 2 || o.r.Partitions[0].Result != "dropped" {
		t.Errorf("%+v, %v", o.r, o.err)
	}
	if names := partitionNames(t, db); len(names) != 4 || names[3] != "event_default" {
		t.Errorf("left %v", names)
	}
	if n := get[int](t, ctx, db, "select count(*)::int from event_default"); n != 1 {
		t.Error("the default partition lost its row")
	}
}

// A detach that was killed is reported and ended, also of a partition that is to be kept; that one is not dropped.
func TestRetainFinalizes(t *testing.T) {
	t.Parallel()
	db, c, database := settled(t, nil)
	s := listener(t, db)
	ctx := within(t, 30*time.Second)
	exec(t, db, "create table event (d date) partition by range (d)")
	monthly(t, db, -3, 1)
	kept := monthFrom(0).Format("event_2006_01")
	tx, err := db.Begin(ctx)
	must(t, err)
	defer tx.Rollback(context.Background())
	exec(t, tx, "select from event limit 1")
	conn, err := c.Primary().Connect(ctx, database)
	must(t, err)
	defer conn.Close(context.Background())
	broken := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "alter table event detach partition "+kept+" concurrently")
		broken <- err
	}()
	await(t, db, "a pending detach that waits", func() bool {
		return get[bool](t, ctx, db, "select exists (select from pg_inherits where inhdetachpending)")
	})
	exec(t, db, "select pg_terminate_backend($1)", conn.PgConn().PID())
	if err := <-broken; err == nil {
		t.Fatal("the detach succeeded: this test tests nothing")
	}
	exec(t, tx, "rollback")
	pending := 0
	for _, p := range decode[dbsplit.PartitionReport](t, call(t, s, "GET", path+"partitions/event", ""), 200).Partitions {
		if p.DetachPending {
			pending++
			if p.Name != kept {
				t.Errorf("%s is reported as pending", p.Name)
			}
		}
	}
	if pending != 1 {
		t.Errorf("%d partitions are reported as pending", pending)
	}
	r := decode[dbsplit.DetachReport](t, call(t, s, "POST", path+"partitions/event/retain?keep=1&drop=true&confirm=true", ""), 200)
	if r.Count != 3 || r.Partitions[0].Name != kept || r.Partitions[0].Result != "detached" || r.Partitions[1].Result != "dropped" {
		t.Errorf("retain: %+v", r)
	}
	if n := get[int](t, ctx, db, "select count(*)::int from "+kept); n != 1 {
		t.Error("the row of a kept month is gone")
	}
	if names := partitionNames(t, db); len(names) != 2 {
		t.Errorf("left %v", names)
	}
}

// A long reader holds up a detach, which then goes on from where it is.
func TestRetainWaitsForReaders(t *testing.T) {
	t.Parallel()
	db, _, _ := settled(t, nil)
	ctx := within(t, 40*time.Second)
	exec(t, db, "create table event (d date) partition by range (d)")
	monthly(t, db, -3, 0)
	tx, err := db.Begin(ctx)
	must(t, err)
	defer tx.Rollback(context.Background())
	exec(t, tx, "select from event limit 1")
	done := make(chan error, 1)
	go func() {
		r, err := db.DetachPartitions(ctx, "event", dbsplit.DetachOptions{KeepMonths: 2})
		if err == nil && r.Count != 1 {
			err = fmt.Errorf("detached %+v", r)
		}
		done <- err
	}()
	await(t, db, "a second try", func() bool {
		return get[bool](t, ctx, db, "select exists (select from pg_stat_activity where datname = current_database() and query like '%finalize' and wait_event_type = 'Lock')")
	})
	exec(t, db, "insert into event values ($1)", monthFrom(0)) // writers go on
	exec(t, tx, "rollback")
	if err := <-done; err != nil {
		t.Error(err)
	}
}
