package dbsplit_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// A replica is promoted while the old primary lives on and still takes whatever it is sent.
func TestPromotionBesideTheLivingPrimary(t *testing.T) {
	t.Parallel()
	ctx := within(t, 80*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs())
		}
	})
	near := run(t, nodesOf(c, "postgres"), nil)
	wall, through := proxied(t, c.Replica(0), "postgres")
	behindWall := dbsplit.Nodes{Primary: c.Primary().URL("postgres"), Replicas: []string{through}}
	far := run(t, behindWall, nil)
	unwatched := open(t, dbsplit.Nodes{Primary: c.Primary().URL("postgres")}, nil)
	for _, db := range []*dbsplit.DB{near, far} {
		await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	}
	notes(t, near)
	must(t, c.Replica(0).WaitCaughtUp(ctx))

	wall.Refuse()
	wall.Reset()
	must(t, c.Replica(0).Promote(ctx))
	await(t, near, "writes to move", func() bool { return near.Nodes()[1].Role == "primary" })

	session, w := scaleaware.WithWatermark(ctx)
	exec(t, watched{near, session}, "insert into notes values (1)")
	tokens, err := w.Written(session)
	must(t, err)
	for name, r := range map[string]*dbsplit.Reader{
		"watching": far.Read(), "watching, the primary preferred": far.Read(dbsplit.PreferPrimary()), "not watching": unwatched.Read(),
	} {
		elsewhere, carried := scaleaware.WithWatermark(ctx)
		for _, token := range tokens {
			carried.Raise(token)
		}
		var n int
		if err := r.QueryRow(elsewhere, "select count(*)::int from notes").Scan(&n); !errors.Is(err, dbsplit.ErrNoNode) || !strings.Contains(err.Error(), "timeline 2") {
			t.Errorf("%s: a read that cannot reach the promoted server found %d rows, %v", name, n, err)
		}
	}
	wall.Heal()
	elsewhere, carried := scaleaware.WithWatermark(ctx)
	for _, token := range tokens {
		carried.Raise(token)
	}
	await(t, far, "the read", func() bool {
		var n int
		err := far.Read().QueryRow(elsewhere, "select count(*)::int from notes").Scan(&n)
		if err == nil && n != 1 || err != nil && !errors.Is(err, dbsplit.ErrNoNode) {
			t.Fatalf("%d rows, %v", n, err)
		}
		return err == nil
	})
}
