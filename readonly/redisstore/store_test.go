package redisstore_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/redisstore"
	"github.com/scaleaware/scaleaware/readonly/storetest"
)

var shared = rediscluster.NewShared(nil)

func TestMain(m *testing.M) {
	if spec := os.Getenv(killedEnv); spec != "" {
		beKilled(spec)
		return
	}
	goleak.VerifyTestMain(shared.Around(m))
}

func connect(t *testing.T) *redis.ClusterClient {
	t.Helper()
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: shared.Get(t).Addrs(), ContextTimeoutEnabled: true, ClusterStateReloadInterval: time.Second})
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

func open(t *testing.T, rdb redis.UniversalClient) *redisstore.Store {
	t.Helper()
	store, err := redisstore.New(rdb, &redisstore.Options{Prefix: strings.NewReplacer("/", ".", " ", "-").Replace(t.Name()) + ":"})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() readonly.Store {
		return func() readonly.Store { return open(t, connect(t)) }
	})
}

func TestBadPrefixIsRefused(t *testing.T) {
	for _, prefix := range []string{"a{b}:", "a*:", "a[b]:", "a", ":a"} {
		if _, err := redisstore.New(connect(t), &redisstore.Options{Prefix: prefix}); err == nil || !strings.Contains(err.Error(), "Options.Prefix") {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
}

func TestSilentInstancesAreForgotten(t *testing.T) {
	store, rdb := open(t, connect(t)), connect(t)
	key := "TestSilentInstancesAreForgotten:{readonly}:acks"
	if err := rdb.HSet(t.Context(), key, "long dead", "1 1 {}").Err(); err != nil {
		t.Fatal(err)
	}
	if err := store.Acknowledge(t.Context(), "alive", readonly.Ack{}, time.Minute); err != nil {
		t.Fatal(err)
	}
	if left, err := rdb.HKeys(t.Context(), key).Result(); err != nil || len(left) != 1 || left[0] != "alive" {
		t.Fatalf("left: %v, %v", left, err)
	}
}

// fleet starts n switches as n processes would.
func fleet(t *testing.T, n int) []*readonly.Switch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var switches []*readonly.Switch
	done := make(chan error, n)
	for i := range n {
		s, err := readonly.New(open(t, connect(t)), &readonly.Options{Instance: string(rune('a' + i)), AckWait: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- s.Run(ctx) }()
		switches = append(switches, s)
	}
	t.Cleanup(func() {
		cancel()
		for range n {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	for _, s := range switches {
		until(t, func() bool { _, known := s.State(); return known })
	}
	until(t, func() bool {
		r, err := switches[0].Report(t.Context())
		return err == nil && r.Instances == n
	})
	return switches
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time")
		}
	}
}

func TestEnableStopsEveryInstance(t *testing.T) {
	switches := fleet(t, 5)
	for round := range 5 {
		on, off := switches[round], switches[(round+2)%5]
		report, err := on.Enable(t.Context(), readonly.Change{Reason: "test", Actor: "me"})
		if err != nil || report.Phase != "drained" || report.Acknowledged != 5 || report.Instances != 5 {
			t.Fatalf("Enable = %+v, %v", report, err)
		}
		for i, s := range switches {
			if s.AllowWrite(t.Context()) == nil {
				t.Fatalf("round %d: instance %d allows a write after all have acknowledged", round, i)
			}
		}
		if report, err = off.Disable(t.Context(), "me"); err != nil || report.Phase != "off" || report.Acknowledged != 5 {
			t.Fatalf("Disable = %+v, %v", report, err)
		}
		for i, s := range switches {
			if err := s.AllowWrite(t.Context()); err != nil {
				t.Fatalf("round %d: instance %d still refuses: %v", round, i, err)
			}
		}
	}
}

func TestSilentInstanceIsNamed(t *testing.T) {
	switches := fleet(t, 1)
	if err := open(t, connect(t)).Acknowledge(t.Context(), "stuck", readonly.Ack{}, time.Minute); err != nil {
		t.Fatal(err)
	}
	quick, err := readonly.New(open(t, connect(t)), &readonly.Options{Instance: "quick", AckWait: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	report, err := quick.Enable(t.Context(), readonly.Change{})
	if err != nil || report.Phase != "announced" || len(report.Missing) != 1 || report.Missing[0] != "stuck" {
		t.Fatalf("Enable = %+v, %v", report, err)
	}
	until(t, func() bool { return switches[0].AllowWrite(t.Context()) != nil })
}

func TestLostStateIsWrittenBack(t *testing.T) {
	switches := fleet(t, 3)
	if _, err := switches[0].Enable(t.Context(), readonly.Change{Reason: "keep me"}); err != nil {
		t.Fatal(err)
	}
	rdb := connect(t)
	key := "TestLostStateIsWrittenBack:{readonly}:state"
	if n, err := rdb.Del(t.Context(), key).Result(); err != nil || n != 1 {
		t.Fatalf("the state's key was not there: %d, %v", n, err)
	}
	until(t, func() bool { return rdb.Exists(t.Context(), key).Val() == 1 })
	newcomer := open(t, connect(t))
	if state, err := newcomer.Load(t.Context()); err != nil || !state.Enabled || state.Reason != "keep me" {
		t.Fatalf("written back: %+v, %v", state, err)
	}
	for _, s := range switches {
		if s.AllowWrite(t.Context()) == nil {
			t.Fatal("an instance forgot the mode with the store")
		}
	}
}

func TestStoreGoneKeepsTheLastState(t *testing.T) {
	cluster := shared.Get(t)
	switches := fleet(t, 2)
	if _, err := switches[0].Enable(t.Context(), readonly.Change{}); err != nil {
		t.Fatal(err)
	}
	for _, n := range cluster.Nodes() {
		n.Freeze()
	}
	thaw := func() {
		for _, n := range cluster.Nodes() {
			n.Thaw()
		}
	}
	defer func() {
		thaw()
		if err := cluster.WaitHealthy(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	until(t, func() bool { return switches[0].Ready(t.Context()) != nil })
	if switches[0].AllowWrite(t.Context()) == nil || switches[1].AllowWrite(t.Context()) == nil {
		t.Fatal("the mode was lost with the store")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := switches[0].Disable(ctx, "me"); err == nil {
		t.Fatal("a change was reported although the store does not answer")
	}
	cold, err := readonly.New(open(t, connect(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if cold.AllowWrite(t.Context()) == nil {
		t.Fatal("an instance that never reached the store allows writes")
	}
	thaw()
	until(t, func() bool { return switches[0].Ready(t.Context()) == nil && switches[1].Ready(t.Context()) == nil })
}

func TestLostPushCostsOnePoll(t *testing.T) {
	switches := fleet(t, 2)
	rdb := connect(t)
	err := rdb.ForEachShard(t.Context(), func(ctx context.Context, node *redis.Client) error {
		return node.Do(ctx, "client", "kill", "type", "pubsub").Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	if report, err := switches[0].Enable(t.Context(), readonly.Change{}); err != nil || report.Acknowledged != 2 {
		t.Fatalf("Enable = %+v, %v", report, err)
	}
	if switches[1].AllowWrite(t.Context()) == nil {
		t.Fatal("the other instance allows a write")
	}
}

func TestRefusedOverHTTP(t *testing.T) {
	switches := fleet(t, 1)
	if _, err := switches[0].Enable(t.Context(), readonly.Change{Reason: "moving"}); err != nil {
		t.Fatal(err)
	}
	if status := post(switches[0]); status != http.StatusServiceUnavailable {
		t.Fatalf("POST is %d in read-only mode", status)
	}
}

func post(s *readonly.Switch) int {
	w := httptest.NewRecorder()
	s.Middleware(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/leads", nil))
	return w.Code
}

// TestSameEpochTwice is a failover that lost a change: the next one gets the same epoch, and must still reach the
// instance that obeys the lost one.
func TestSameEpochTwice(t *testing.T) {
	switches := fleet(t, 1)
	if _, err := switches[0].Disable(t.Context(), "me"); err != nil {
		t.Fatal(err)
	}
	mine, _ := switches[0].State()
	other := readonly.State{Epoch: mine.Epoch, ID: "another change", Enabled: true}
	rdb := connect(t)
	blob, err := json.Marshal(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := rdb.HSet(t.Context(), "TestSameEpochTwice:{readonly}:state", "state", blob).Err(); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return switches[0].AllowWrite(t.Context()) != nil })
}

func TestFrozenInstanceIsMissing(t *testing.T) {
	switches := fleet(t, 1)
	store := open(t, connect(t))
	if err := store.Acknowledge(t.Context(), "frozen", readonly.Ack{Epoch: 1 << 60}, time.Minute); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool {
		report, err := switches[0].Report(t.Context())
		return err == nil && len(report.Missing) == 1 && report.Missing[0] == "frozen" && report.Instances == 2
	})
}

func TestStoppedInstanceIsNotMissed(t *testing.T) {
	store := open(t, connect(t))
	s, err := readonly.New(store, &readonly.Options{Instance: "leaving"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	until(t, func() bool { acks, err := store.Acknowledged(t.Context()); return err == nil && len(acks) == 1 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if acks, err := store.Acknowledged(t.Context()); err != nil || len(acks) != 0 {
		t.Fatalf("after it has left: %v, %v", acks, err)
	}
}
