package dbsplit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// A cluster that was upgraded keeps its extensions' old versions; and a reset makes the counts begin anew.
func TestSlowQueriesOldAndReset(t *testing.T) {
	c := shared.Get(t)
	db := open(t, dbsplit.Nodes{Primary: c.Primary().URL(c.Database(t))}, nil)
	ctx := within(t, 30*time.Second)
	exec(t, db, "create extension pg_stat_statements version '1.8'")
	if _, err := db.SlowQueries(ctx, time.Hour, 10); err == nil || !strings.Contains(err.Error(), "ALTER EXTENSION") {
		t.Errorf("version 1.8: %v", err)
	}
	exec(t, db, "alter extension pg_stat_statements update")
	calls := func() (n int64, windowed bool) {
		r, err := db.SlowQueries(ctx, time.Hour, 500)
		must(t, err)
		for _, q := range r.Merged {
			if strings.Contains(q.Query, "as counted") {
				n += q.Calls
			}
		}
		return n, r.Nodes[0].Windowed
	}
	for range 3 {
		get[int](t, ctx, db, "select 1 as counted")
	}
	if n, windowed := calls(); n != 3 || windowed {
		t.Errorf("first %d calls, windowed %v", n, windowed)
	}
	get[int](t, ctx, db, "select 1 as counted")
	if n, windowed := calls(); n != 1 || !windowed {
		t.Errorf("then %d calls, windowed %v", n, windowed)
	}
	if r, err := db.SlowQueries(ctx, time.Hour, -1); err != nil || len(r.Merged) != 0 || len(r.Nodes[0].Queries) != 0 {
		t.Errorf("at most -1 of them: %+v, %v", r, err)
	}
	exec(t, db, "select pg_stat_statements_reset()")
	for range 7 { // more than before
		get[int](t, ctx, db, "select 1 as counted")
	}
	if n, windowed := calls(); n != 7 || !windowed { // all since the reset, which came after the earlier look
		t.Errorf("after a reset %d calls, windowed %v", n, windowed)
	}
}
