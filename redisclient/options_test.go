package redisclient_test

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/scaleaware/scaleaware/redisclient"
)

func withPassword(o *redis.UniversalOptions) *redis.UniversalOptions {
	o.Password = canary
	return o
}

func wantIn(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v does not say %q", err, text)
	}
}

func TestAddresses(t *testing.T) {
	for _, test := range []struct {
		name  string
		addrs []string
		want  []string
	}{
		{"none", nil, nil},
		{"one", []string{"a:1"}, []string{"a:1"}},
		{"list as in the environment", []string{"a:1, b:2,", ""}, []string{"a:1", "b:2"}},
		{"without a port", []string{"a", "10.0.0.1", "::1", "[::2]"}, []string{"a:6379", "10.0.0.1:6379", "[::1]:6379", "[::2]:6379"}},
		{"socket", []string{"/run/redis.sock"}, []string{"/run/redis.sock"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := redisclient.Options(test.addrs...).Addrs; !slices.Equal(got, test.want) {
				t.Errorf("Addrs = %q, want %q", got, test.want)
			}
		})
	}
}

func TestKindOfClient(t *testing.T) {
	for _, test := range []struct {
		name    string
		options *redis.UniversalOptions
		want    string
	}{
		{"nil", nil, "Redis at 127.0.0.1:6379, database 0"},
		{"one", redisclient.Options("a:1"), "Redis at a:1, database 0"},
		{"database and TLS", &redis.UniversalOptions{Addrs: []string{"a:1"}, DB: 3, TLSConfig: &tls.Config{}}, "Redis at a:1, database 3, TLS"},
		{"several", redisclient.Options("a:1", "b:2"), "Redis Cluster at a:1, b:2"},
		{"one of a cluster", &redis.UniversalOptions{Addrs: []string{"a:1"}, IsClusterMode: true}, "Redis Cluster at a:1"},
		{"Sentinel", &redis.UniversalOptions{Addrs: []string{"a:1", "b:2"}, MasterName: "main"}, "Redis behind Sentinel, database 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			rdb := redisclient.New(test.options)
			defer rdb.Close()
			if got := redisclient.Describe(rdb); got != test.want {
				t.Errorf("Describe = %q, want %q", got, test.want)
			}
			if found := redisclient.Check(rdb); len(found) > 0 {
				t.Errorf("our own client is not good enough: %q", found)
			}
		})
	}
}

func TestNewKeepsWhatIsSetAndLeavesTheOptionsAlone(t *testing.T) {
	o := &redis.UniversalOptions{Addrs: []string{"a:1", "b:2"}, ReadTimeout: 7 * time.Second, PoolSize: 3}
	rdb := redisclient.New(o)
	defer rdb.Close()
	got := rdb.(*redis.ClusterClient).Options()
	if got.ReadTimeout != 7*time.Second || got.PoolSize != 3 {
		t.Errorf("ReadTimeout %v, PoolSize %d: the caller's are lost", got.ReadTimeout, got.PoolSize)
	}
	if got.ClusterStateReloadInterval != time.Second || !got.ContextTimeoutEnabled || got.DialerRetries != 1 {
		t.Errorf("not hardened: %v, %v, %d", got.ClusterStateReloadInterval, got.ContextTimeoutEnabled, got.DialerRetries)
	}
	if o.ContextTimeoutEnabled || o.DialTimeout != 0 {
		t.Error("New changed the caller's options")
	}
}

func TestCheckNamesEachDanger(t *testing.T) {
	good := func() *redis.Options { return redisclient.Options("a:1").Simple() }
	cluster := func() *redis.ClusterOptions {
		o := redisclient.Options("a:1", "b:2").Cluster()
		o.ClusterStateReloadInterval = time.Second
		return o
	}
	for name, test := range map[string]struct {
		client redis.UniversalClient
		want   []string
	}{
		"go-redis, one server": {redis.NewClient(&redis.Options{}), []string{"ContextTimeoutEnabled", "up to 20 times"}},
		"go-redis, cluster": {
			redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"a:1"}}),
			[]string{"ContextTimeoutEnabled", "every 1m0s", "up to 20 times"},
		},
		"universal client": {
			redis.NewUniversalClient(redisclient.Options("a:1", "b:2")), // has no field for it
			[]string{"ClusterStateReloadInterval"},
		},
		"no timeouts": {
			redis.NewClient(with(good(), func(o *redis.Options) { o.ReadTimeout, o.WriteTimeout = -1, -2 })),
			[]string{"ReadTimeout is off", "WriteTimeout is off"},
		},
		"long waits": {
			redis.NewClient(with(good(), func(o *redis.Options) { o.DialTimeout, o.PoolTimeout = time.Minute, time.Minute })),
			[]string{"DialTimeout is 1m0s", "PoolTimeout is 1m0s"},
		},
		"replicas": {
			redis.NewClusterClient(with(cluster(), func(o *redis.ClusterOptions) { o.RouteRandomly = true })),
			[]string{"replicas, which lag"},
		},
		"unknown type": {redis.NewRing(&redis.RingOptions{}), nil},
	} {
		t.Run(name, func(t *testing.T) {
			defer test.client.Close()
			found := redisclient.Check(test.client)
			if len(found) != len(test.want) {
				t.Fatalf("Check = %q, want %d texts", found, len(test.want))
			}
			for i, want := range test.want {
				if !strings.Contains(found[i], want) || !strings.HasPrefix(found[i], "redisclient: ") {
					t.Errorf("text %d is %q, want it to name %q", i, found[i], want)
				}
			}
		})
	}
}

func with[T any](v *T, change func(*T)) *T {
	change(v)
	return v
}

func TestTLSHandshakeEndsWithTheContext(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts; nobody shakes hands
	check(t, err)
	defer listener.Close()
	rdb := redisclient.New(&redis.UniversalOptions{Addrs: []string{listener.Addr().String()}, TLSConfig: &tls.Config{}, DialTimeout: time.Minute})
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := rdb.Subscribe(ctx, "channel").Receive(ctx); err == nil {
		t.Fatal("want an error")
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the handshake took %v", took)
	}
}

// go-redis notes that a server knows no notifications of maintenance where a Conn and its client race for it: the detector of
// races would tell.
func TestNoMaintenanceIsAskedFor(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cluster := redisclient.New(redisclient.Options("a:1", "b:2")).(*redis.ClusterClient)
	defer cluster.Close()
	if mode := cluster.Options().MaintNotificationsConfig.Mode; mode != maintnotifications.ModeDisabled {
		t.Errorf("the mode of a cluster's client is %q", mode)
	}
	for range 5 {
		rdb := redisclient.New(withPassword(redisclient.Options(single.Get(t).Addrs()...))).(*redis.Client)
		if mode := rdb.Options().MaintNotificationsConfig.Mode; mode != maintnotifications.ModeDisabled {
			t.Errorf("the mode is %q", mode)
		}
		conn := rdb.Conn()
		var wg sync.WaitGroup
		for _, ping := range []func(context.Context) *redis.StatusCmd{rdb.Ping, conn.Ping, rdb.Ping} {
			wg.Go(func() {
				if err := ping(ctx).Err(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		check(t, conn.Close())
		check(t, rdb.Close())
	}
}
