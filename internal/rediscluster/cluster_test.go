package rediscluster

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestStartIsComplete(t *testing.T) {
	ctx, c := healthy(t)
	if n := len(c.Addrs()); n != 6 {
		t.Fatalf("%d addresses, want 6", n)
	}
	masters := must[[]*Node](t)(c.Masters(ctx))
	if len(masters) != 3 {
		t.Fatalf("%d masters, want 3", len(masters))
	}
	for _, n := range c.nodes {
		v := must[*view](t)(n.view(ctx))
		roles := map[bool]int{}
		for _, m := range v.members {
			roles[m.master == ""]++
		}
		if roles[true] != 3 || roles[false] != 3 {
			t.Errorf("%s sees %d masters and %d replicas", n.name, roles[true], roles[false])
		}
	}
	for _, m := range masters {
		replica := must[*Node](t)(c.ReplicaOf(ctx, m))
		if replica == m {
			t.Error("a master replicates itself")
		}
	}
}

func TestSingle(t *testing.T) {
	c := single.Get(t)
	ctx := context.Background()
	n := must[*Node](t)(c.MasterFor(ctx, "any"))
	check(t, c.WaitHealthy(ctx))
	check(t, n.Client().Set(ctx, "k", "v", 0).Err())
	check(t, c.Flush(ctx))
	if size := n.Client().DBSize(ctx).Val(); size != 0 {
		t.Errorf("%d keys after Flush", size)
	}
	if err := c.MigrateSlot(ctx, 1, n); err == nil {
		t.Error("MigrateSlot on a single server succeeded")
	}
	n.Kill()
	check(t, n.Start(ctx))
	check(t, n.Client().Ping(ctx).Err())
	if err := n.Start(ctx); err == nil {
		t.Error("Start of a server that runs succeeded")
	}
}

func TestSideBySideAndGone(t *testing.T) {
	shared.Get(t) // the other cluster, or the reason to skip
	ctx := context.Background()
	c, err := Start(ctx, &Options{Nodes: 1})
	check(t, err)
	dir, addr := c.nodes[0].dir, c.nodes[0].Addr()
	check(t, c.nodes[0].Client().Ping(ctx).Err())
	check(t, c.Close())
	check(t, c.Close())
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
	if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		conn.Close()
		t.Error("the server still listens")
	}
}

func TestStartReportsTheLog(t *testing.T) {
	shared.Get(t)
	_, err := Start(context.Background(), &Options{Nodes: 1, Config: map[string]string{"maxmemory-policy": "no-such-policy"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-policy") {
		t.Fatalf("want an error with Redis's own words, got %v", err)
	}
}

func TestOptionsMistakesAreAllNamed(t *testing.T) {
	_, err := Start(context.Background(), &Options{Nodes: 4, Config: map[string]string{"Port": "1", "dir": "/"}})
	for _, want := range []string{"Nodes is 4", `"Port"`, `"dir"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}

func TestFlushReachesEveryMaster(t *testing.T) {
	ctx, c := healthy(t)
	rdb := client(t, c)
	for i := range 100 {
		check(t, rdb.Set(ctx, "flush"+strconv.Itoa(i), 1, 0).Err())
	}
	check(t, c.Flush(ctx))
	if n := rdb.DBSize(ctx).Val(); n != 0 {
		t.Errorf("%d keys after Flush", n)
	}
}
