package cache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/localserver"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

// sentinels starts a master, a replica of it, and three sentinels that watch them, and returns the sentinels' addresses.
func sentinels(t *testing.T, ctx context.Context) (addrs []string, master, replica *rediscluster.Node) {
	t.Helper()
	for _, n := range []**rediscluster.Node{&master, &replica} {
		c, err := rediscluster.Start(ctx, &rediscluster.Options{Nodes: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		*n = c.Nodes()[0]
	}
	host, port, err := net.SplitHostPort(master.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := replica.Client().Do(ctx, "REPLICAOF", host, port).Err(); err != nil {
		t.Fatal(err)
	}
	binary, env, err := localserver.Find("redis-server")
	if err != nil {
		t.Fatal(err)
	}
	home, err := localserver.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := home.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range 3 {
		name := fmt.Sprint("sentinel", i)
		dir, err := home.Mkdir(name)
		if err != nil {
			t.Fatal(err)
		}
		own, err := home.Port()
		if err != nil {
			t.Fatal(err)
		}
		conf := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %q\nsentinel monitor main %s %s 2\nsentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n",
			own, dir, host, port)
		path := filepath.Join(dir, "sentinel.conf") // which it writes into
		if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := home.Start(ctx, localserver.Config{Name: name, Path: binary, Args: []string{path, "--sentinel"}, Env: env, Dir: dir}); err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, fmt.Sprint("127.0.0.1:", own))
	}
	for _, addr := range addrs {
		s := redis.NewSentinelClient(&redis.Options{Addr: addr})
		eventually(t, "the sentinels know each other and the replica", func() bool {
			m, err := s.Master(ctx, "main").Result()
			replicas, _ := s.Replicas(ctx, "main").Result()
			return err == nil && m["num-other-sentinels"] == "2" && m["flags"] == "master" && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
		})
		s.Close()
	}
	return addrs, master, replica
}

// A pair behind Sentinel is one server to the cache, before, during and after a promotion.
func TestSentinel(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	addrs, master, replica := sentinels(t, ctx)
	o := redisclient.Options(addrs...)
	o.MasterName = "main"
	o.DialTimeout = time.Second
	rdb := redisclient.New(o)
	defer rdb.Close()
	here := running(t, newStore(t, rdb, func(o *Options) { o.RedisTimeout = 500 * time.Millisecond }))
	there := running(t, sibling(t, here))
	tags := Tags(func(string, lead) []string { return []string{"all"} })
	of := func(s *Store) *View[lead] { return Of[lead](s, "lead", InProcess(Local{}), tags) }
	a, b := of(here), of(there)
	score := int64(0)
	works := func() {
		t.Helper()
		for name, invalidate := range map[string]func() error{
			"delete":  func() error { return b.Delete(ctx, "1") },
			"set":     func() error { return b.Set(ctx, "1", lead{Score: score + 1}) },
			"tag":     func() error { return there.InvalidateTags(ctx, "all") },
			"pattern": func() error { _, err := there.Invalidate(ctx, "*"); return err },
		} {
			if err := a.Set(ctx, "1", lead{Score: score}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			settled(t, ctx, a, "1", loads(lead{Score: score}))
			settled(t, ctx, b, "1", loads(lead{Score: score}))
			if err := invalidate(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			score++
			l, err := b.Load(ctx, "1", loads(lead{Score: score}))
			wantScore(t, l, err, score)
			eventually(t, "the news of a "+name, func() bool {
				l, err := a.Load(ctx, "1", loads(lead{Score: score}))
				return err == nil && l.Score == score
			})
			score++
		}
	}
	works()
	eventually(t, "the replica has all", func() bool {
		info, err := master.Client().Info(ctx, "replication").Result()
		return err == nil && strings.Contains(info, "lag=0")
	})
	if err := a.Set(ctx, "owed", lead{Score: 1}); err != nil {
		t.Fatal(err)
	}
	if n := master.Client().Wait(ctx, 1, 5*time.Second).Val(); n != 1 {
		t.Fatalf("%d replicas", n)
	}
	master.Kill()
	if err := a.Delete(ctx, "owed"); err == nil {
		t.Error("deleted without a master")
	}
	for range 10 {
		began := time.Now()
		l, err := a.Load(ctx, "2", loads(lead{Score: 5}))
		wantScore(t, l, err, 5)
		if took := time.Since(began); took > 3*here.opts.RedisTimeout+slack {
			t.Errorf("a load without a master took %v", took)
		}
	}
	eventually(t, "the replica is promoted", func() bool {
		role, err := replica.Client().Do(ctx, "ROLE").Slice()
		return err == nil && role[0] == "master"
	})
	began := time.Now()
	eventually(t, "a value is set and got", func() bool {
		if a.Set(ctx, "1", lead{Score: 6}) != nil {
			return false
		}
		l, err := b.Get(ctx, "1")
		return err == nil && l.Score == 6
	})
	t.Log("works again after", time.Since(began))
	covered(t, here)
	covered(t, there)
	eventually(t, "what was owed is deleted", func() bool { _, err := b.Get(ctx, "owed"); return errors.Is(err, ErrMiss) })
	works()
}
