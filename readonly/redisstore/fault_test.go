package redisstore_test

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
)

func keyOf(t *testing.T, name string) string {
	return strings.NewReplacer("/", ".", " ", "-").Replace(t.Name()) + ":{readonly}:" + name
}

// Whoever can publish cannot switch: a message only makes the instances read the key.
func TestForgedPublishChangesNothing(t *testing.T) {
	switches := fleet(t, 2)
	if _, err := switches[0].Disable(t.Context(), "me"); err != nil {
		t.Fatal(err)
	}
	before, _ := switches[1].State()
	rdb := connect(t)
	forged, err := json.Marshal(readonly.State{Epoch: 1 << 40, ID: "forged", Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{"1099511627776", string(forged), ""} {
		if err := rdb.Publish(t.Context(), keyOf(t, "changed"), message).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := switches[0].Enable(t.Context(), readonly.Change{Reason: "real"}); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return switches[1].AllowWrite(t.Context()) != nil })
	if now, _ := switches[1].State(); now.Epoch != before.Epoch+1 || now.Reason != "real" {
		t.Fatalf("after forged messages the state is %+v, before it was %+v", now, before)
	}
}

// A state that was recorded earlier and is put back does not switch anything, and is replaced.
func TestStaleStateIsReplaced(t *testing.T) {
	switches := fleet(t, 2)
	if _, err := switches[0].Disable(t.Context(), "me"); err != nil {
		t.Fatal(err)
	}
	rdb := connect(t)
	recorded, err := rdb.HGetAll(t.Context(), keyOf(t, "state")).Result()
	if err != nil || len(recorded) == 0 {
		t.Fatal(recorded, err)
	}
	if _, err := switches[0].Enable(t.Context(), readonly.Change{Reason: "later"}); err != nil {
		t.Fatal(err)
	}
	if err := rdb.HSet(t.Context(), keyOf(t, "state"), recorded).Err(); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool {
		for _, s := range switches {
			if s.AllowWrite(t.Context()) == nil {
				t.Fatal("a stale state let writes through")
			}
		}
		state, err := open(t, rdb).Load(t.Context())
		return err == nil && state.Reason == "later"
	})
}

// The master that holds the state is replaced by its replica. Nobody loses the mode, and it can be changed afterwards.
func TestFailoverKeepsTheMode(t *testing.T) {
	cluster := shared.Get(t)
	switches := fleet(t, 2)
	if _, err := switches[0].Enable(t.Context(), readonly.Change{Reason: "before"}); err != nil {
		t.Fatal(err)
	}
	master, err := cluster.MasterFor(t.Context(), keyOf(t, "state"))
	if err != nil {
		t.Fatal(err)
	}
	replica, err := cluster.ReplicaOf(t.Context(), master)
	if err != nil {
		t.Fatal(err)
	}
	if err := replica.Takeover(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.WaitHealthy(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, s := range switches {
		if s.AllowWrite(t.Context()) == nil {
			t.Fatal("the mode was lost with the master")
		}
	}
	until(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		report, err := switches[1].Disable(ctx, "me")
		return err == nil && !report.Enabled
	})
	until(t, func() bool { return switches[0].AllowWrite(t.Context()) == nil })
}

// TestPropagation tells how long a change takes to reach 50 instances, and with SCALEAWARE_PROPAGATION=1 200. The targets,
// 10 and 25 ms at the 99th percentile, hold on a machine with nothing else to do; what is insisted on is the poll.
func TestPropagation(t *testing.T) {
	sizes := []int{50}
	if os.Getenv("SCALEAWARE_PROPAGATION") != "" {
		sizes = append(sizes, 200)
	}
	for _, n := range sizes {
		rounds := 20
		// They share a client as goroutines of one process; each has a subscription of its own.
		rdb := connect(t)
		store := open(t, rdb)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, n)
		var switches []*readonly.Switch
		for i := range n {
			s, err := readonly.New(store, &readonly.Options{Instance: string(rune('0' + i)), AckWait: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			go func() { done <- s.Run(ctx) }()
			switches = append(switches, s)
		}
		for _, s := range switches {
			until(t, func() bool { _, known := s.State(); return known })
		}
		var took []time.Duration
		for round := range rounds {
			arrived := make(chan time.Duration, n)
			began := time.Now()
			for _, s := range switches[1:] {
				go func() {
					for changed := s.Changed(); (s.AllowWrite(ctx) == nil) == (round%2 == 0); changed = s.Changed() {
						if now := s.AllowWrite(ctx) == nil; now != (round%2 == 0) {
							break
						}
						select {
						case <-changed:
						case <-ctx.Done():
							return
						}
					}
					arrived <- time.Since(began)
				}()
			}
			began = time.Now()
			if round%2 == 0 {
				switches[0].Enable(ctx, readonly.Change{})
			} else {
				switches[0].Disable(ctx, "me")
			}
			for range n - 1 {
				select {
				case d := <-arrived:
					took = append(took, d)
				case <-time.After(20 * time.Second):
					t.Fatal("a change did not arrive")
				}
			}
		}
		cancel()
		for range n {
			<-done
		}
		slices.Sort(took)
		t.Logf("%d instances: p50 %v, p99 %v, most %v", n, took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	}
}
