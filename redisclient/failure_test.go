package redisclient_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

// deadlineIgnored is what no call with a deadline takes on a slow machine, and less than the 2s of ReadTimeout and
// DialTimeout, which end a call whose deadline is ignored.
const deadlineIgnored = 1500 * time.Millisecond

func TestHungMasterEndsWithTheDeadline(t *testing.T) {
	ctx, c, rdb := healthy(t)
	check(t, rdb.Set(ctx, "key", "v", 0).Err())
	master, err := c.MasterFor(ctx, "key")
	check(t, err)
	master.Freeze()
	fresh := redisclient.New(redisclient.Options(master.Addr(), master.Addr())) // has no connection yet
	defer fresh.Close()
	var worst time.Duration
	for range 4 {
		for name, client := range map[string]redis.UniversalClient{"warm": rdb, "fresh": fresh} {
			short, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
			start := time.Now()
			err := client.Get(short, "key").Err()
			took := time.Since(start)
			cancel()
			if err == nil {
				t.Fatalf("%s: a frozen master answered", name)
			}
			worst = max(worst, took)
		}
	}
	t.Logf("longest call with 250ms: %v", worst)
	if worst > deadlineIgnored {
		t.Errorf("a call with a deadline of 250ms took %v", worst)
	}
	master.Thaw()
}

func TestHungServerWithoutADeadline(t *testing.T) {
	ctx := context.Background()
	n := single.Get(t).Nodes()[0]
	rdb := redisclient.New(withPassword(redisclient.Options(n.Addr())))
	defer rdb.Close()
	check(t, rdb.Ping(ctx).Err())
	n.Freeze()
	defer n.Thaw()
	start := time.Now()
	err := rdb.Ping(ctx).Err()
	took := time.Since(start)
	t.Logf("a call without a deadline: %v, %v", took, err)
	if err == nil || took > 6*time.Second {
		t.Errorf("it took %v and returned %v", took, err)
	}
}

func TestLostMasterIsReplaced(t *testing.T) {
	for name, lose := range map[string]func(*rediscluster.Node){"killed": (*rediscluster.Node).Kill, "frozen": (*rediscluster.Node).Freeze} {
		t.Run(name, func(t *testing.T) {
			ctx, c, rdb := healthy(t)
			check(t, rdb.Set(ctx, "key", 0, 0).Err())
			master, err := c.MasterFor(ctx, "key")
			check(t, err)
			lose(master)
			start := time.Now()
			promoted := make(chan time.Time, 1)
			go func() {
				for ctx.Err() == nil {
					if now, err := c.MasterFor(ctx, "key"); err == nil && now != master {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
				promoted <- time.Now()
			}()
			failures, longest := writeUntilItWorks(t, rdb)
			took, after := time.Since(start), time.Since(<-promoted)
			t.Logf("writes again after %v (node timeout 2s), %v after the promotion; %d failures, longest call %v", took, after, failures, longest)
			if after > 4*time.Second { // a second and a half on a machine with nothing else to do
				t.Errorf("writes again only %v after the promotion", after)
			}
			if longest > deadlineIgnored {
				t.Errorf("a call with a deadline of 500ms took %v", longest)
			}
			if failures == 0 {
				t.Error("no write failed: the wrong master was lost")
			}
		})
	}
}

// TestSilentNodeHoldsUpNoLookUp: of six nodes that may be asked for the layout one says nothing.
func TestSilentNodeHoldsUpNoLookUp(t *testing.T) {
	ctx, c, rdb := healthy(t)
	check(t, rdb.Ping(ctx).Err())
	master, err := c.MasterFor(ctx, "key")
	check(t, err)
	replica, err := c.ReplicaOf(ctx, master)
	check(t, err)
	replica.Freeze()
	for range 40 { // each asks it first with a probability of 1/6
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		check(t, redisclient.EachMaster(short, rdb, func(ctx context.Context, master *redis.Client) error { return master.Ping(ctx).Err() }))
		cancel()
	}
	patient := redisclient.New(redisclient.Options(c.Addrs()...)).(*redis.ClusterClient)
	defer patient.Close()
	check(t, patient.Ping(ctx).Err())
	for range 40 {
		start := time.Now()
		check(t, patient.ForEachMaster(ctx, func(context.Context, *redis.Client) error { return nil }))
		if took := time.Since(start); took > deadlineIgnored {
			t.Errorf("without a deadline the masters were found after %v", took)
		}
	}
}

func writeUntilItWorks(t *testing.T, rdb redis.UniversalClient) (failures int, longest time.Duration) {
	t.Helper()
	for start := time.Now(); ; failures++ {
		call, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		began := time.Now()
		err := rdb.Set(call, "key", failures, 0).Err()
		cancel()
		longest = max(longest, time.Since(began))
		if err == nil {
			return failures, longest
		}
		if time.Since(start) > 15*time.Second {
			t.Fatalf("writes still fail after %v: %v", time.Since(start), err)
		}
	}
}

func TestRefusedPortIsDialledOnce(t *testing.T) {
	proxy, err := faultconn.New("127.0.0.1:1")
	check(t, err)
	defer proxy.Close()
	proxy.Refuse()
	var dials atomic.Int64
	count := func(o *redis.UniversalOptions) *redis.UniversalOptions {
		dials.Store(0)
		o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
		return o
	}
	addr := proxy.Addr()
	for _, test := range []struct {
		name   string
		client func() redis.UniversalClient
		most   int64
	}{
		{"server", func() redis.UniversalClient { return redisclient.New(count(redisclient.Options(addr))) }, 1},
		// One node after the other is asked for the layout, once each.
		{"cluster", func() redis.UniversalClient { return redisclient.New(count(redisclient.Options(addr, addr, addr))) }, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			rdb := test.client()
			defer rdb.Close()
			start := time.Now()
			if err := rdb.Get(context.Background(), "key").Err(); err == nil {
				t.Fatal("a refused port answered")
			}
			t.Logf("%d dials in %v", dials.Load(), time.Since(start))
			if n := dials.Load(); n == 0 || n > test.most {
				t.Errorf("one GET dialled %d times, want at most %d", n, test.most)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("one GET took %v", took)
			}
		})
	}
	t.Run("go-redis by default", func(t *testing.T) {
		rdb := redis.NewUniversalClient(count(&redis.UniversalOptions{Addrs: []string{addr}}))
		defer rdb.Close()
		rdb.Get(context.Background(), "key")
		if n := dials.Load(); n <= 1 {
			t.Errorf("go-redis dials %d times now: is this package still needed?", n)
		}
	})
}

func TestWaitForAConnectionIsBounded(t *testing.T) {
	n := single.Get(t).Nodes()[0]
	o := withPassword(redisclient.Options(n.Addr()))
	o.PoolSize = 1
	rdb := redisclient.New(o)
	defer rdb.Close()
	ctx, cancel := context.WithCancel(context.Background())
	check(t, rdb.Ping(ctx).Err())
	blocked := make(chan error, 1)
	go func() { blocked <- rdb.BLPop(ctx, 0, "never").Err() }()
	for n.Client().InfoMap(ctx, "clients").Val()["Clients"]["blocked_clients"] != strconv.Itoa(1) {
		time.Sleep(5 * time.Millisecond)
	}
	start := time.Now()
	err := rdb.Ping(ctx).Err()
	if took := time.Since(start); !errors.Is(err, redis.ErrPoolTimeout) || took > 3*time.Second {
		t.Errorf("with all connections busy: %v after %v, want %v after a second", err, took, redis.ErrPoolTimeout)
	}
	check(t, n.Client().RPush(ctx, "never", "x").Err())
	check(t, <-blocked)
	cancel()
}

func TestEachMaster(t *testing.T) {
	ctx, c, rdb := healthy(t)
	masters, err := c.Masters(ctx)
	check(t, err)
	err = redisclient.EachMaster(ctx, rdb, func(ctx context.Context, master *redis.Client) error {
		return errors.Join(master.Ping(ctx).Err(), errors.New("reached"))
	})
	for _, m := range masters {
		wantIn(t, err, "master "+m.Addr()+": reached")
	}
	visits := 0
	n := single.Get(t).Nodes()[0]
	check(t, redisclient.EachMaster(ctx, n.Client(), func(context.Context, *redis.Client) error { visits++; return nil }))
	if visits != 1 {
		t.Errorf("a single server was visited %d times", visits)
	}
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": n.Addr()}})
	defer ring.Close()
	wantIn(t, redisclient.EachMaster(ctx, ring, nil), "not a *redis.Ring")
}
