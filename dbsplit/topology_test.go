package dbsplit_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

func names(db *dbsplit.DB) (all []string) {
	for _, n := range db.Nodes() {
		all = append(all, n.Name)
	}
	return all
}

func TestReplicasComeAndGo(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	all := nodesOf(c, database)
	db := run(t, dbsplit.Nodes{Primary: all.Primary}, nil)
	ctx := within(t, 40*time.Second)
	if s := served(t, ctx, db.Read()); s != "primary" {
		t.Fatalf("without replicas served by the %s", s)
	}
	must(t, db.AddReplica(all.Replicas[0]))
	await(t, db, "reads on the new replica", func() bool { return served(t, ctx, db.Read()) == "replica" })

	// Reads go on without an error while replicas come and go.
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := db.Read().QueryRow(context.Background(), "select 1").Scan(nil); err != nil {
					t.Errorf("a read: %v", err)
					return
				}
			}
		})
	}
	for range 5 {
		must(t, db.AddReplica(all.Replicas[1]))
		await(t, db, "both replicas", func() bool { return fresh(db) == 2 })
		must(t, db.RemoveReplica(c.Replica(1).Addr()))
	}
	close(stop)
	readers.Wait()
	if got, want := names(db), []string{c.Primary().Addr(), c.Replica(0).Addr()}; !slices.Equal(got, want) {
		t.Errorf("the nodes are %v, want %v", got, want)
	}

	for what, err := range map[string]error{
		"takes the writes":  db.RemoveReplica(c.Primary().Addr()),
		"there is no node":  db.RemoveReplica("db9:5432"),
		"is a node already": db.AddReplica(all.Replicas[0]),
		"no connection":     db.AddReplica("://"),
	} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want it to say %q", err, what)
		}
	}
	must(t, db.RemoveReplica(c.Replica(0).Addr()))
	if s := served(t, ctx, db.Read()); s != "primary" {
		t.Errorf("without replicas again served by the %s", s)
	}
}

// standbys is a discovery whose answer a test changes.
type standbys struct {
	mu  sync.Mutex
	all []string
	err error
}

func (s *standbys) discover(context.Context, *dbsplit.DB) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all, s.err
}

func (s *standbys) set(err error, all ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all, s.err = all, err
}

func TestDiscover(t *testing.T) {
	c := shared.Get(t)
	all := nodesOf(c, c.Database(t))
	var found standbys
	found.set(nil, all.Replicas[0], "://nonsense")
	db := run(t, dbsplit.Nodes{Primary: all.Primary}, &dbsplit.Options{Discover: found.discover, DiscoverInterval: 20 * time.Millisecond})
	await(t, db, "the first replica, beside nonsense", func() bool { return fresh(db) == 1 })
	found.set(nil, all.Replicas...)
	await(t, db, "both replicas", func() bool { return fresh(db) == 2 })
	found.set(errors.New("the registry is away"))
	found.set(nil, all.Replicas[1], all.Primary)
	await(t, db, "the first to be taken out", func() bool {
		return slices.Equal(names(db), []string{c.Primary().Addr(), c.Replica(1).Addr()})
	})
}

func TestDiscoverFromDNSAndStandbys(t *testing.T) {
	c := shared.Get(t)
	all := nodesOf(c, c.Database(t))
	for name, discovery := range map[string]dbsplit.Discovery{
		"DNS": dbsplit.FromDNS(strings.Replace(all.Replicas[0], "127.0.0.1", "localhost", 1)),
		"standbys": dbsplit.FromStandbys(func(s dbsplit.Standby) string {
			if s.Addr != "127.0.0.1" || s.Application == "" {
				t.Errorf("a standby is %+v", s)
			}
			return all.Replicas[0]
		}),
	} {
		t.Run(name, func(t *testing.T) {
			db := run(t, dbsplit.Nodes{Primary: all.Primary}, &dbsplit.Options{Discover: discovery})
			await(t, db, "the replica", func() bool { return fresh(db) == 1 })
			if !slices.Contains(names(db), c.Replica(0).Addr()) {
				t.Errorf("the nodes are %v", names(db))
			}
		})
	}
	reply, err := dbsplit.FromStandbys(func(dbsplit.Standby) string { return "x" })(t.Context(), open(t, dbsplit.Nodes{Primary: all.Primary}, nil))
	if err != nil || len(reply) != 2 {
		t.Errorf("two standbys are %v, %v", reply, err)
	}
	must(t, c.Primary().Exec(t.Context(), "create role blind login"))
	defer c.Primary().Exec(context.Background(), "drop role blind") //nolint:errcheck // of a test's cluster
	_, err = dbsplit.FromStandbys(func(dbsplit.Standby) string { return "x" })(t.Context(), open(t, dbsplit.Nodes{Primary: asRole(t, all.Primary, "blind")}, nil))
	if err == nil || !strings.Contains(err.Error(), "pg_monitor") {
		t.Errorf("a role that may not see them: %v", err)
	}
}

// One server under two names is recognised: neither a second primary, nor twice the replica.
func TestTwins(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	all := nodesOf(c, database)
	_, primary := proxied(t, c.Primary(), database)
	_, replica := proxied(t, c.Replica(0), database)
	db := run(t, dbsplit.Nodes{Primary: all.Primary, Replicas: []string{all.Replicas[0], primary, replica}}, nil)
	await(t, db, "the twins to be known", func() bool { n := db.Nodes(); return n[2].Role == "twin" && n[3].Role == "twin" })
	must(t, db.Ready(t.Context()))
	if n := db.Nodes(); n[2].Advice == "" || n[0].Role != "primary" || n[1].Role != "replica" {
		t.Errorf("%+v", n)
	}
	exec(t, db, "create table notes (n int)")
}
