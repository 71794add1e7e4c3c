package dbsplit_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

func TestOptimizeOnlyTablesThatMayBe(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	nodes := dbsplit.Nodes{Primary: c.Primary().URL(c.Database(t))}
	db := open(t, nodes, &dbsplit.Options{MaintainTables: []string{"Lead", `"Exact"`, `other."odd.""name"`, "events"}})
	s := listener(t, db)
	exec(t, db, `create table "Lead" (n int); create table "Exact" (n int); create table exact (n int); create table ledger (n int)`)
	exec(t, db, `create schema other; create table other."odd.""name" (n int); create table "odd.""name" (n int); create table other.lead (n int)`)
	exec(t, db, `create table events (d date) partition by range (d); create table events_1 partition of events for values from ('2024-01-01') to ('2024-02-01')`)
	ctx := within(t, 30*time.Second)
	for name, may := range map[string]bool{
		"Lead": true, `"Lead"`: true, "public.Lead": true, "other.lead": true, `"Exact"`: true, `other."odd.""name"`: true, "events": true,
		"exact": false, `public."odd.""name"`: false, "ledger": false, "events_1": false,
	} {
		r, err := db.OptimizeTable(ctx, name, dbsplit.OptimizeOptions{})
		dry := call(t, s, "POST", path+"optimize-table/"+url.PathEscape(name)+"?dry_run=true", "")
		if may {
			if err != nil || r.After.Vacuums == r.Before.Vacuums {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
			dry.wants(t, 200, "VACUUM")
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "Options.MaintainTables") {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		dry.wants(t, 403, "Options.MaintainTables")
		call(t, s, "POST", path+"optimize-table/"+url.PathEscape(name), "").wants(t, 403, "Options.MaintainTables")
	}
	_, err := dbsplit.Open(ctx, nodes, &dbsplit.Options{MaintainTables: []string{"Lead", "a.b.c", ""}})
	if err == nil || !strings.Contains(err.Error(), "MaintainTables[1]") || !strings.Contains(err.Error(), "MaintainTables[2]") {
		t.Errorf("names that are none: %v", err)
	}
}
