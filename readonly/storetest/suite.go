package storetest

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
)

// Run runs the suite. open returns a new handle on one and the same empty store each time that it is called within a
// subtest, as two processes would have.
func Run(t *testing.T, open func(t *testing.T) (handle func() readonly.Store)) {
	t.Run("empty store is the zero state", func(t *testing.T) {
		store := open(t)()
		if got, err := store.Load(t.Context()); err != nil || !got.Equal(readonly.State{}) {
			t.Fatalf("Load = %+v, %v", got, err)
		}
	})
	t.Run("higher epoch wins, lower and equal ones do not", func(t *testing.T) { epochs(t, open(t)) })
	t.Run("one of many concurrent savers of an epoch wins", func(t *testing.T) { race(t, open(t)) })
	t.Run("watchers hear of a change", func(t *testing.T) { watch(t, open(t)) })
	t.Run("acknowledgements live and die", func(t *testing.T) { acks(t, open(t)) })
}

func epochs(t *testing.T, handle func() readonly.Store) {
	a, b := handle(), handle()
	ten := readonly.State{Epoch: 10, Enabled: true, Reason: "maintenance", Since: time.UnixMilli(1700000000000).UTC(), Until: time.UnixMilli(1700000001000).UTC(), Actor: "ops", ID: "x",
		Tier: readonly.Staff, Tenants: []string{"a", "b"}, Source: readonly.Automatic, Lease: time.UnixMilli(1700000002000).UTC(), Incident: true,
		Relief: readonly.Relief{Phase: "ending", Next: 2, Before: []json.RawMessage{json.RawMessage(`null`), json.RawMessage(`{"paused":true}`)},
			Skipped: []int{0}, Failed: []string{"it"}, Owner: "one", Lease: time.UnixMilli(1700000003000).UTC()}}
	save(t, a, ten, ten)
	save(t, b, readonly.State{Epoch: 9}, ten)
	save(t, b, readonly.State{Epoch: 10}, ten)
	if got, err := b.Load(t.Context()); err != nil || !got.Equal(ten) {
		t.Fatalf("the other handle loads %+v, %v; want %+v", got, err, ten)
	}
	// Compared as numbers, not as text, and exactly above 2^53.
	save(t, b, readonly.State{Epoch: 1<<60 + 1}, readonly.State{Epoch: 1<<60 + 1})
	save(t, a, readonly.State{Epoch: 1 << 60}, readonly.State{Epoch: 1<<60 + 1})
	save(t, a, readonly.State{Epoch: 9}, readonly.State{Epoch: 1<<60 + 1})
}

func save(t *testing.T, store readonly.Store, s, want readonly.State) {
	t.Helper()
	if got, err := store.Save(t.Context(), s); err != nil || !got.Equal(want) {
		t.Fatalf("Save(%+v) = %+v, %v; want %+v", s, got, err, want)
	}
}

func race(t *testing.T, handle func() readonly.Store) {
	var winners atomic.Int64
	var group sync.WaitGroup
	for n := range 20 {
		store := handle()
		group.Go(func() {
			mine := readonly.State{Epoch: 1, Actor: string(rune('a' + n))}
			if got, err := store.Save(t.Context(), mine); err != nil {
				t.Error(err)
			} else if got.Equal(mine) {
				winners.Add(1)
			}
		})
	}
	group.Wait()
	if winners.Load() != 1 {
		t.Fatalf("%d savers believe that they won", winners.Load())
	}
}

func watch(t *testing.T, handle func() readonly.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan struct{}, 100)
	ended := make(chan error, 1)
	watcher := handle()
	go func() { ended <- watcher.Watch(ctx, func() { heard <- struct{}{} }) }()
	await(t, heard, "the watcher never began to listen")
	if _, err := handle().Save(t.Context(), readonly.State{Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	await(t, heard, "the watcher did not hear of the change")
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("Watch ends with %v when its context does", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Watch outlives its context")
	}
}

func acks(t *testing.T, handle func() readonly.Store) {
	a, b := handle(), handle()
	ctx := t.Context()
	one := readonly.Ack{Epoch: 1<<60 + 1, ID: "x y", InFlight: 3, Jobs: 4, Connections: 5}
	if err := a.Acknowledge(ctx, "one", one, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := a.Acknowledge(ctx, "gone", one, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := b.Acknowledge(ctx, "gone", readonly.Ack{}, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Acknowledge(ctx, "two", readonly.Ack{Epoch: 6}, 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		got, err := b.Acknowledged(ctx)
		if err != nil {
			t.Fatal(err)
		}
		heard, there := got["one"]
		age := heard.Age
		heard.Age = 0
		if _, gone := got["gone"]; !there || heard != one || gone {
			t.Fatalf("acknowledged: %v", got)
		}
		if _, alive := got["two"]; !alive && age >= 250*time.Millisecond && age < time.Minute {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("an instance that fell silent is still counted")
		}
	}
}

func await(t *testing.T, heard <-chan struct{}, complaint string) {
	t.Helper()
	select {
	case <-heard:
	case <-time.After(10 * time.Second):
		t.Fatal(complaint)
	}
}
