package dbsplit_test

import (
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// A replica is cut off, the primary commits once more and dies, and the replica is promoted and written to, until its log is
// longer than the old one ever was: by its number alone the lost write's position is reached. Whoever made it is told.
func TestLostWrite(t *testing.T) {
	t.Parallel()
	for name, privileged := range map[string]bool{"with the history file": true, "as seen by the monitor": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := within(t, 100*time.Second)
			c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
			must(t, err)
			t.Cleanup(func() { c.Close() })
			must(t, c.Primary().Exec(ctx, "create role app login", "grant create, usage on schema public to app"))
			must(t, c.Replica(0).WaitCaughtUp(ctx))
			nodes := nodesOf(c, "postgres")
			if !privileged {
				nodes.Primary, nodes.Replicas[0] = asRole(t, nodes.Primary, "app"), asRole(t, nodes.Replicas[0], "app")
			}
			reg := prometheus.NewRegistry()
			db := run(t, nodes, &dbsplit.Options{Registerer: reg})
			await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
			exec(t, db, "create table notes (n int)")
			kept, w := scaleaware.WithWatermark(ctx)
			exec(t, watched{db, kept}, "insert into notes values (1)")
			_, err = w.Written(kept)
			must(t, err)
			must(t, c.Replica(0).WaitCaughtUp(ctx))
			must(t, c.Replica(0).CutStream(ctx))
			await(t, db, "the replica's last position", func() bool {
				ok := false
				for _, n := range db.Nodes()[1:] {
					lsn, _ := scaleaware.ParseLSN(n.LSN)
					written, _ := w.Written(kept)
					ok = len(written) == 1 && lsn >= written[0].LSN
				}
				return ok
			})

			lost, w2 := scaleaware.WithWatermark(ctx)
			for i := range 200 { // so that the position lies well beyond the fork
				exec(t, watched{db, lost}, "insert into notes values ($1)", 100+i)
			}
			_, err = w2.Written(lost)
			must(t, err)
			c.Primary().Kill()
			must(t, c.Replica(0).Promote(ctx))
			await(t, db, "writes", func() bool { _, err := db.Exec(ctx, "insert into notes values (2)"); return err == nil })
			exec(t, db, "insert into notes select generate_series(1000, 50000)")

			err = db.Read().QueryRow(lost, "select 1").Scan(nil)
			if !errors.Is(err, dbsplit.ErrLostWrite) {
				t.Errorf("whoever lost a write gets %v", err)
			}
			const count = "select count(*)::int from notes where n between 100 and 999"
			if n := get[int](t, lost, db.Read(), count); n != 0 {
				t.Errorf("the second read finds %d lost rows", n)
			}
			if n := get[int](t, kept, db.Read(), "select count(*)::int from notes where n = 1"); n != 1 {
				t.Errorf("the write that was kept is there %d times", n)
			}
			if n := counter(t, reg, "db_tokens_total", "outcome", "lost"); n != 1 {
				t.Errorf("%v lost tokens are counted", n)
			}
		})
	}
}

// asRole returns a connection string for another role.
func asRole(t testing.TB, connString, role string) string {
	t.Helper()
	u, err := url.Parse(connString)
	must(t, err)
	u.User = url.User(role)
	return u.String()
}
