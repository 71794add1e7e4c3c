package dbsplit_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// Every operation that is not a GET is refused while the gate is closed, or is no write.
func TestOperationsObeyTheGate(t *testing.T) {
	t.Parallel()
	notWrites := map[string]string{
		"database.cancel-long-running": "it ends statements, and is needed most when the database is in trouble",
		"database.pool":                "it changes this process",
	}
	g := new(gate)
	db, c, database := settled(t, &dbsplit.Options{Gate: g})
	ctx := within(t, 60*time.Second)
	exec(t, db, "create table event (d date, n int) partition by range (d)")
	exec(t, db, "create table event_default partition of event default")
	exec(t, db, "create table event_2020_01 partition of event for values from ('2020-01-01') to ('2020-02-01')")
	exec(t, db, "insert into event values ('2020-01-05', 1), ('2020-03-05', 2)")
	s := listener(t, db)
	second, err := c.Primary().Connect(ctx, database) // it knows nothing of the gate
	must(t, err)
	defer second.Close(context.Background())
	state := func() string {
		return get[string](t, ctx, second, `select concat_ws('|',
			(select string_agg(concat_ws(':', c.oid, c.relname, relfilenode, relpartbound is null, vacuum_count, analyze_count), ' ' order by c.oid)
				from pg_class c left join pg_stat_all_tables s on s.relid = c.oid where c.relnamespace = 'public'::regnamespace),
			(select string_agg(concat_ws(':', inhrelid, inhparent, inhdetachpending), ' ' order by inhrelid) from pg_inherits),
			(select string_agg(concat_ws(':', tableoid, d, n), ' ' order by n) from event))`)
	}
	fill := strings.NewReplacer("{table}", "event")
	queries := map[string]string{"database.retain": "?keep=1&drop=true&confirm=true"}
	bodies := map[string]string{"database.pool": `{"max": 5}`}
	before := state()
	g.set(errMaintenance)
	writes := 0
	for _, op := range db.Operations() {
		target := fill.Replace(op.Path) + queries[op.ID]
		got := call(t, s, op.Method, target, bodies[op.ID])
		switch why, exempt := notWrites[op.ID]; {
		case op.Method == http.MethodGet || exempt:
			if got.status != http.StatusOK && !strings.Contains(got.body, "pg_stat_statements") {
				t.Errorf("%s is refused in read-only mode (%s): %+v", op.ID, why, got)
			}
			delete(notWrites, op.ID)
		default:
			writes++
			got.wants(t, http.StatusServiceUnavailable, "end read-only mode first")
		}
	}
	if len(notWrites) != 0 || writes != 4 {
		t.Errorf("%d writes; unknown %v", writes, notWrites)
	}
	for name, do := range map[string]func() error{
		"OptimizeTable": func() error {
			_, err := db.OptimizeTable(ctx, "event", dbsplit.OptimizeOptions{Reindex: true})
			return err
		},
		"EnsurePartitions": func() error { _, err := db.EnsurePartitions(ctx, "event", 1, false); return err },
		"MoveDefaultRows":  func() error { _, err := db.MoveDefaultRows(ctx, "event", dbsplit.MoveOptions{}); return err },
		"DetachPartitions": func() error {
			_, err := db.DetachPartitions(ctx, "event", dbsplit.DetachOptions{KeepMonths: 1, Drop: true})
			return err
		},
	} {
		if err := do(); !errors.Is(err, errMaintenance) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := state(); after != before {
		t.Errorf("the database was\n%s and is\n%s", before, after)
	}
	// The same calls change it when the gate is open: this test can fail.
	g.set(nil)
	if _, err := db.DetachPartitions(ctx, "event", dbsplit.DetachOptions{KeepMonths: 1}); err != nil || state() == before {
		t.Errorf("with the gate open nothing changed: %v", err)
	}
}
