package dbsplit_test

import (
	"context"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

func TestSizes(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	db := open(t, dbsplit.Nodes{Primary: c.Primary().URL(database)}, nil)
	s := listener(t, db)
	ctx := within(t, 30*time.Second)
	exec(t, db, `create table "Lead" (id int primary key, note text) with (autovacuum_enabled = off)`)
	exec(t, db, `alter table "Lead" alter column note set storage external`)
	exec(t, db, `create table small (n int)`)
	exec(t, db, `create table busy (n int primary key)`)
	exec(t, db, `create table event (d date, n int) partition by range (d)`)
	exec(t, db, `create table event_1 partition of event for values from ('2024-01-01') to ('2024-02-01')`)
	exec(t, db, `create table event_2 partition of event for values from ('2024-02-01') to ('2024-03-01') partition by range (n)`)
	exec(t, db, `create table event_2_low partition of event_2 for values from (minvalue) to (10)`)
	exec(t, db, `insert into "Lead" select n, repeat('x', 5000) from generate_series(1, 200) n`)
	exec(t, db, `insert into event select '2024-01-05', n from generate_series(1, 5000) n`)
	exec(t, db, `insert into event values ('2024-02-02', 5)`)
	exec(t, db, `delete from "Lead" where id <= 50; select pg_stat_force_next_flush()`)

	first := decode[dbsplit.SizesReport](t, call(t, s, "GET", path+"sizes", ""), 200)
	if first.Database != database || first.Count != 4 || !first.Since.IsZero() || first.Growth != nil {
		t.Errorf("the first call: %+v", first)
	}
	byName := func(r dbsplit.SizesReport) map[string]dbsplit.TableSize {
		all := make(map[string]dbsplit.TableSize)
		for _, st := range r.Tables {
			all[st.Table] = st
			if st.Bytes != st.HeapBytes+st.IndexBytes+st.ToastBytes {
				t.Errorf("%s: the parts are not the whole: %+v", st.Table, st)
			}
		}
		return all
	}
	was := byName(first)
	lead := was[`"public"."Lead"`]
	if lead.ToastBytes < 200*5000 || lead.IndexBytes == 0 || lead.HeapBytes == 0 || lead.LiveRows != 150 || lead.DeadRows != 50 {
		t.Errorf("%+v", lead)
	}
	if e := was[`"public"."event"`]; e.Partitions != 2 || e.HeapBytes < 5000*30 {
		t.Errorf("%+v", e)
	}
	if first.Tables[0].Table != lead.Table {
		t.Errorf("the largest is %s", first.Tables[0].Table)
	}

	exec(t, db, `insert into event select '2024-01-06', n from generate_series(1, 5000) n`)
	exec(t, db, `truncate "Lead"`)
	exec(t, db, `create table fresh (n int)`)
	// Nobody waits for a table that is locked.
	tx, err := db.Begin(ctx)
	must(t, err)
	defer tx.Rollback(context.Background())
	exec(t, tx, "lock table busy in access exclusive mode")
	r := decode[dbsplit.SizesReport](t, call(t, s, "GET", path+"sizes", ""), 200)
	now := byName(r)
	if r.Since.IsZero() || r.WindowSeconds <= 0 || r.Growth == nil || r.Growth.Bytes != r.Bytes-first.Bytes || r.Growth.PerDayBytes != nil {
		t.Errorf("growth: %+v, %+v", r, r.Growth)
	}
	for name, table := range now {
		switch before, ok := was[name]; {
		case !ok && table.Growth != nil:
			t.Errorf("%s was not there before, and has grown: %+v", name, table.Growth)
		case ok && (table.Growth == nil || table.Growth.Bytes != table.Bytes-before.Bytes):
			t.Errorf("%s has grown %+v", name, table.Growth)
		}
	}
	if g := now[`"public"."event"`].Growth; g == nil || g.Bytes <= 0 || now[lead.Table].Growth.Bytes >= 0 {
		t.Errorf("event has grown %+v, and Lead %+v", g, now[lead.Table].Growth)
	}
	if len(r.Locked) != 1 || r.Locked[0] != `"public"."busy"` || r.Count != 5 {
		t.Errorf("locked: %v of %d", r.Locked, r.Count)
	}
	if r := decode[dbsplit.SizesReport](t, call(t, s, "GET", path+"sizes?limit=1", ""), 200); len(r.Tables) != 1 || r.Count != 5 {
		t.Errorf("limit 1: %+v", r)
	}
	call(t, s, "GET", path+"sizes?window=-1h", "").wants(t, 400, "window")

	guest := as(t, db, c, database, "stranger")
	if r, err := guest.Sizes(ctx, time.Hour, 10); err != nil || len(r.Tables) != 4 || r.Bytes == 0 {
		t.Errorf("without privileges: %+v, %v", r, err)
	}
}
