package dbsplit_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// A server that is up, and answers the monitor with an error, is told so. Here it lacks functions as Aurora does.
func TestObjectionIsNoSilence(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	ctx := within(t, 60*time.Second)
	for state, part := range map[string]string{"0A000": "Aurora", "42883": "Aurora", "42501": "put that right"} {
		database := c.Database(t)
		conn, err := c.Primary().Connect(ctx, database)
		must(t, err)
		exec(t, conn, fmt.Sprintf(`create schema theirs; create function theirs.pg_last_wal_replay_lsn() returns pg_lsn language plpgsql
			as $$begin raise 'function is currently not supported' using errcode = '%s'; end$$`, state))
		exec(t, conn, fmt.Sprintf("alter database %q set search_path = theirs, pg_catalog, public", database))
		must(t, conn.Close(ctx))
		for _, r := range c.Servers()[1:] {
			must(t, r.WaitCaughtUp(ctx))
		}
		db := run(t, nodesOf(c, database), nil)
		await(t, db, "the probes", func() bool { return probed(db, 0) && probed(db, 1) && probed(db, 2) })
		if s := served(t, ctx, db.Read()); s != "primary" {
			t.Errorf("%s: a read was served by the %s", state, s)
		}
		for _, n := range db.Nodes()[1:] {
			if n.Up || strings.Contains(n.Advice, "does not answer") || !strings.Contains(n.Advice, state) || !strings.Contains(n.Advice, "not supported") || !strings.Contains(n.Advice, part) {
				t.Errorf("%s: %+v", state, n)
			}
		}
	}
	db := run(t, dbsplit.Nodes{Primary: c.Primary().URL("nowhere")}, nil)
	await(t, db, "the probe", func() bool { return probed(db, 0) })
	if n := db.Nodes()[0]; n.Up || strings.Contains(n.Advice, "does not answer") || !strings.Contains(n.Advice, "3D000") {
		t.Errorf("a primary without the database: %+v", n)
	}
	if err := db.Ready(ctx); err == nil || strings.Contains(err.Error(), "promote a replica") || !strings.Contains(err.Error(), "refuses the monitor") {
		t.Errorf("Ready: %v", err)
	}
}
