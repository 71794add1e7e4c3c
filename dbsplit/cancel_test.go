package dbsplit_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// A session that is idle in a transaction holds its locks, and has no statement to cancel.
func TestCancelTransactions(t *testing.T) {
	t.Parallel()
	db, c, database := settled(t, nil)
	s := listener(t, db)
	ctx := within(t, 30*time.Second)
	idler, err := c.Primary().Connect(ctx, database)
	must(t, err)
	defer idler.Close(context.Background())
	exec(t, idler, "begin")
	exec(t, idler, "select 'idler'")
	cancel := path + "cancel-long-running?older_than=1s"
	find := func(path string) (found *dbsplit.CancelledStatement, count int) {
		r := decode[dbsplit.CancelReply](t, call(t, s, "POST", path, ""), 200)
		for _, node := range r.Nodes {
			for _, st := range node.Statements {
				if uint32(st.PID) == idler.PgConn().PID() {
					found = &st
				}
			}
		}
		return found, r.Count
	}
	await(t, db, "an old transaction", func() bool {
		nodes, err := db.CancelLongRunning(ctx, dbsplit.CancelOptions{OlderThan: time.Second, Transactions: true, DryRun: true})
		must(t, err)
		return slices.ContainsFunc(nodes[0].Statements, func(st dbsplit.CancelledStatement) bool {
			return uint32(st.PID) == idler.PgConn().PID() && st.Result == "dry-run" && st.State == "idle in transaction" && st.Seconds >= 1
		})
	})
	if st, _ := find(cancel); st != nil {
		t.Errorf("judged by its statement: %+v", st)
	}
	if st, n := find(cancel + "&transactions=true"); st == nil || st.Result != "idle" || n != 0 {
		t.Errorf("without terminate: %+v, count %d", st, n)
	}
	exec(t, idler, "select 'still here'") // the same transaction
	if st, n := find(cancel + "&transactions=true&terminate=true"); st == nil || st.Result != "terminated" || n != 1 {
		t.Errorf("with terminate: %+v, count %d", st, n)
	}
	if _, err := idler.Exec(ctx, "commit"); err == nil || !strings.Contains(err.Error(), "57P01") {
		t.Errorf("the terminated session: %v", err)
	}
}
