package redisfleet_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/redisclient"
)

// ask gets the dashboard as an operator does.
func ask(t *testing.T, c *metrics.Capacity, scope string) (d struct {
	Scope, Degraded string
	Instances       []string
	Members         []metrics.Member
	Metrics         []struct {
		ID     string
		Value  *float64
		Labels map[string]string
	}
}) {
	t.Helper()
	h, err := admin.New(c.Operations(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/api/v1/performance/capacity/dashboard?scope="+scope, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:9", "127.0.0.1"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %.200s: %v", w.Code, w.Body, err)
	}
	return d
}

// Several instances on a real server, with everything that others can do to the store.
func TestFleetAndInstancesAgree(t *testing.T) {
	t.Run("cluster", func(t *testing.T) { fleetAgrees(t, connect(t)) })
	t.Run("single", func(t *testing.T) {
		server, err := rediscluster.Start(t.Context(), &rediscluster.Options{Nodes: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := server.Close(); err != nil {
				t.Error(err)
			}
		}()
		client := redisclient.New(redisclient.Options(server.Addrs()...))
		defer func() { _ = client.Close() }()
		fleetAgrees(t, client)
	})
}

func fleetAgrees(t *testing.T, client redis.UniversalClient) {
	store := newStore(t, client, "test:agree:")
	ctx, cancel := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	defer func() {
		cancel()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	}()
	type instance struct {
		*metrics.Capacity
		kill context.CancelFunc
	}
	fleet := map[string]instance{}
	for name, depth := range map[string]float64{"api-1": 100, "api-2": 300, "api-3": 200} {
		reg := prometheus.NewRegistry()
		tasks, err := metrics.NewGauge(reg, metrics.QueueTasks)
		if err != nil {
			t.Fatal(err)
		}
		tasks.WithLabelValues("normal", "pending").Set(depth)
		c, err := metrics.NewCapacity(reg, &metrics.CapacityOptions{
			Interval: 200 * time.Millisecond, Window: 4 * time.Second, Instance: name, Store: store, Version: "v1.0.0",
		})
		if err != nil {
			t.Fatal(err)
		}
		own, kill := context.WithCancel(ctx)
		group.Go(func() error { return c.Run(own) })
		fleet[name] = instance{c, kill}
	}
	depth := func(name, scope string) float64 {
		for _, m := range ask(t, fleet[name].Capacity, scope).Metrics {
			if m.ID == "queue_depth" && m.Value != nil {
				return *m.Value
			}
		}
		return -1
	}
	eventually(t, "all report the fleet's largest, and each its own", func() bool {
		return depth("api-1", "fleet") == 300 && depth("api-2", "fleet") == 300 && depth("api-3", "fleet") == 300 &&
			depth("api-1", "instance") == 100 && depth("api-2", "instance") == 300 && depth("api-3", "instance") == 200
	})
	eventually(t, "all three are members", func() bool { // one whose snapshot came late is missed for a moment
		d := ask(t, fleet["api-1"].Capacity, "fleet")
		return len(d.Members) == 3 && d.Members[1].Instance == "api-2" && d.Members[1].Version == "v1.0.0" && d.Members[1].SnapshotAgeSeconds <= 5 && d.Degraded == ""
	})
	d := ask(t, fleet["api-1"].Capacity, "instance")
	if d.Scope != "instance" || !slices.Equal(d.Instances, []string{"api-1"}) {
		t.Errorf("the instance's own view: %+v", d)
	}

	// What a program of ours whose clock is five hours ahead would write.
	var template map[string]any
	if err := json.Unmarshal([]byte(all(t, store)["api-1"]), &template); err != nil {
		t.Fatal(err)
	}
	write := func(name string, ttl, ahead time.Duration, value float64) {
		now := time.Now().Add(ahead).UnixMilli()
		template["started"], template["at"] = now-10_000, now
		template["points"] = map[string]any{"queue_depth": map[string]any{"normal": []float64{value}}}
		blob, err := json.Marshal(template)
		if err != nil {
			t.Fatal(err)
		}
		put(t, store, name, string(blob), ttl)
	}
	eventually(t, "an instance with another clock counts as any other", func() bool {
		write("skewed", time.Second, 5*time.Hour, 700)
		d := ask(t, fleet["api-1"].Capacity, "fleet")
		i := slices.IndexFunc(d.Members, func(m metrics.Member) bool { return m.Instance == "skewed" })
		return depth("api-1", "fleet") == 700 && i >= 0 && d.Members[i].ClockOffsetSeconds > 4*3600
	})
	eventually(t, "it goes when it no longer writes", func() bool { return depth("api-1", "fleet") == 300 })

	fleet["api-2"].kill()
	eventually(t, "an instance that was killed is left out", func() bool {
		return depth("api-1", "fleet") == 200 && !slices.Contains(ask(t, fleet["api-3"].Capacity, "fleet").Instances, "api-2")
	})

	write("stale", time.Hour, 0, 900) // its time to live was lost
	eventually(t, "a snapshot that is never renewed does not stay", func() bool {
		return depth("api-1", "fleet") == 200 && strings.Contains(ask(t, fleet["api-1"].Capacity, "fleet").Degraded, `no longer renewed, and left out: the snapshot of "stale"`)
	})

	for name, blob := range map[string]string{
		"junk": "\x00\xff", "huge": `{"v":2,"points":{"queue_depth":{"normal":[1e308]}}}`, "minus": `{"v":2,"points":{"queue_depth":{"normal":[-1]}}}`,
		"vitals": `{"v":2,"vitals":{"rates":[1e300,0]}}`, "future": `{"v":99}`,
	} {
		put(t, store, name, blob, time.Hour)
	}
	eventually(t, "poisoned snapshots are named, and change nothing", func() bool {
		return depth("api-3", "fleet") == 200 && strings.Contains(ask(t, fleet["api-3"].Capacity, "fleet").Degraded, `left out: the snapshot of "future", "huge", "junk", "minus", "vitals"`)
	})
	if got := slices.Sorted(maps.Keys(all(t, store))); len(got) < 8 {
		t.Errorf("the store lost snapshots that are not this instance's to delete: %v", got)
	}
}
