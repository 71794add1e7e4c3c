package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/localserver"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// skewed is a cluster whose masters' clocks are five minutes ahead and behind, and those of their replicas the other way
// round. It returns a master whose clock is ahead, too, with its replica, whose clock is ten minutes behind that.
func skewed(t *testing.T, ctx context.Context) (c *rediscluster.Cluster, master, replica *rediscluster.Node) {
	t.Helper()
	const off = 5 * time.Minute
	c, err := rediscluster.Start(ctx, &rediscluster.Options{Clocks: []time.Duration{off, -off, 0, -off, off, 0}})
	if errors.Is(err, localserver.ErrNotInstalled) && os.Getenv("SCALEAWARE_REQUIRE_SERVERS") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	master, replica = c.Nodes()[0], c.Nodes()[3]
	return c, master, replica
}

// spread are keys of all masters.
func spread(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprint("key", i))
	}
	return ids
}

// Servers' clocks are minutes apart, and a server takes over whose clock is behind that of the one before.
func TestSkewedServers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster, master, replica := skewed(t, ctx)
	here := running(t, newStore(t, client(t, cluster), nil))
	there := running(t, sibling(t, here))
	tags := Tags(func(string, lead) []string { return []string{"all"} })
	of := func(s *Store) *View[lead] { return Of[lead](s, "lead", TTL(time.Minute), InProcess(Local{}), tags) }
	a, b := of(here), of(there)
	ids := spread(12)
	score := int64(0)
	// What is loaded before an invalidation is gone after it, everywhere, and what is loaded after it is kept.
	check := func(t *testing.T) {
		for name, invalidate := range map[string]func() error{
			"delete": func() error { return b.Delete(ctx, ids...) },
			"tag":    func() error { return there.InvalidateTags(ctx, "all") },
			"sweep":  func() error { _, err := there.Invalidate(ctx, "lead:*"); return err },
		} {
			score++
			for _, id := range ids {
				settled(t, ctx, a, id, loads(lead{Score: score}))
				settled(t, ctx, b, id, loads(lead{Score: score}))
			}
			g := newGate()
			late := background(ctx, a, "late", g.load)
			<-g.entered
			if err := invalidate(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if name == "delete" {
				if err := b.Delete(ctx, "late"); err != nil {
					t.Fatal(err)
				}
			}
			g.release <- lead{Score: score}
			<-late
			for _, id := range append([]string{"late"}, ids...) {
				if l, err := b.Get(ctx, id); !errors.Is(err, ErrMiss) {
					t.Errorf("%s: %s is there still, here: %+v, %v", name, id, l, err)
				}
			}
			eventually(t, "the news of a "+name, func() bool {
				for _, id := range ids {
					if inProcess(a, id) != nil {
						return false
					}
				}
				return true
			})
			for _, id := range ids {
				if l, err := a.Get(ctx, id); !errors.Is(err, ErrMiss) {
					t.Errorf("%s: %s is there still, elsewhere: %+v, %v", name, id, l, err)
				}
			}
		}
	}
	check(t)
	short := Of[lead](here, "short", TTL(time.Second), Jitter(0))
	for _, id := range ids {
		l, err := short.Load(ctx, id, loads(lead{Score: 1}))
		wantScore(t, l, err, 1)
		if _, err := short.Get(ctx, id); err != nil {
			t.Errorf("%s of a short life: %v", id, err)
		}
	}
	for _, id := range ids {
		eventually(t, "its life ends", func() bool { _, err := short.Get(ctx, id); return errors.Is(err, ErrMiss) })
	}

	// Somebody loads a key of the master that dies, and dies as well.
	dead := ""
	for i := 0; dead == ""; i++ {
		id := fmt.Sprint("dead", i)
		if on, err := cluster.MasterFor(ctx, a.prefix+id); err != nil {
			t.Fatal(err)
		} else if on == master {
			dead = id
		}
	}
	fl := &fill{key: a.prefix + dead, id: dead}
	if how, _, _, err := there.begin(ctx, fl); err != nil || how != granted {
		t.Fatal(how, err)
	}
	if n := master.Client().Wait(ctx, 1, 5*time.Second).Val(); n != 1 {
		t.Fatalf("%d replicas have the claim", n)
	}
	master.Kill()
	if err := cluster.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	if now, err := cluster.MasterFor(ctx, fl.key); err != nil || now != replica {
		t.Fatal("the replica has not taken over: ", err)
	}
	covered(t, here)
	covered(t, there)
	began := time.Now()
	l, err := a.Load(ctx, dead, loads(lead{Score: 2}))
	wantScore(t, l, err, 2)
	if took := time.Since(began); took > claimTTL+slack {
		t.Errorf("the claim of the dead was waited for %v", took)
	}
	l, err = b.Get(ctx, dead)
	wantScore(t, l, err, 2)
	check(t)
}
