package pairstore_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/pairstore"
	"github.com/scaleaware/scaleaware/readonly/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// flaky is a store that can be down.
type flaky struct {
	readonly.Store
	down atomic.Bool
}

var errDown = errors.New("down")

func newFlaky() *flaky { return &flaky{Store: readonly.NewMemory()} }

func (f *flaky) Load(ctx context.Context) (readonly.State, error) {
	if f.down.Load() {
		return readonly.State{}, errDown
	}
	return f.Store.Load(ctx)
}

func (f *flaky) Save(ctx context.Context, s readonly.State) (readonly.State, error) {
	if f.down.Load() {
		return readonly.State{}, errDown
	}
	return f.Store.Save(ctx, s)
}

func (f *flaky) Acknowledge(ctx context.Context, instance string, ack readonly.Ack, ttl time.Duration) error {
	if f.down.Load() {
		return errDown
	}
	return f.Store.Acknowledge(ctx, instance, ack, ttl)
}

func (f *flaky) Acknowledged(ctx context.Context) (map[string]readonly.Ack, error) {
	if f.down.Load() {
		return nil, errDown
	}
	return f.Store.Acknowledged(ctx)
}

func pair(t *testing.T, first, second readonly.Store) *pairstore.Store {
	t.Helper()
	s, err := pairstore.New(first, second, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	for name, down := range map[string][2]bool{"both": {}, "first alone": {false, true}, "second alone": {true, false}} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) func() readonly.Store {
				first, second := newFlaky(), newFlaky()
				first.down.Store(down[0])
				second.down.Store(down[1])
				if down[0] {
					first.Store = second.Store // which tells watchers: the pair itself does not, callers poll then
				}
				return func() readonly.Store { return pair(t, first, second) }
			})
		})
	}
}

// wants compares what a store has.
func wants(t *testing.T, store readonly.Store, epoch uint64, enabled bool) {
	t.Helper()
	if got, err := store.Load(t.Context()); err != nil || got.Epoch != epoch || got.Enabled != enabled {
		t.Errorf("loaded %+v, %v; want epoch %d, enabled %v", got, err, epoch, enabled)
	}
}

func save(t *testing.T, store readonly.Store, s readonly.State) {
	t.Helper()
	if _, err := store.Save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func TestLossOfEitherIsHealed(t *testing.T) {
	for lost := range 2 {
		stores := []*flaky{newFlaky(), newFlaky()}
		s := pair(t, stores[0], stores[1])
		save(t, s, readonly.State{Epoch: 7, ID: "x", Enabled: true})
		stores[lost].Store = readonly.NewMemory() // evicted, or restored from a backup of the day before
		save(t, stores[lost], readonly.State{Epoch: 3, ID: "old"})
		wants(t, pair(t, stores[0], stores[1]), 7, true) // a new process, which has seen nothing
		wants(t, stores[0].Store, 7, true)
		wants(t, stores[1].Store, 7, true)
	}
}

func TestLossIsSeenByWhoSawMore(t *testing.T) {
	first, second := newFlaky(), newFlaky()
	s := pair(t, first, second)
	save(t, s, readonly.State{Epoch: 7, ID: "x", Enabled: true})
	wants(t, s, 7, true)
	first.Store = readonly.NewMemory()
	wants(t, s, 7, true)
	wants(t, first.Store, 7, true)
}

func TestChangeWhileOneIsDown(t *testing.T) {
	for gone := range 2 {
		stores := []*flaky{newFlaky(), newFlaky()}
		s, err := pairstore.New(stores[0], stores[1], &pairstore.Options{Every: 1})
		if err != nil {
			t.Fatal(err)
		}
		save(t, s, readonly.State{Epoch: 1, ID: "a"})
		stores[gone].down.Store(true)
		save(t, s, readonly.State{Epoch: 2, ID: "b", Enabled: true})
		wants(t, s, 2, true)
		stores[gone].down.Store(false)
		wants(t, s, 2, true)
		wants(t, stores[gone], 2, true)
	}
}

// Each half of the instances reached another store. The half that refuses writes wins, and all come to know it.
func TestStoresThatWereChangedApart(t *testing.T) {
	for on := range 2 {
		stores := []*flaky{newFlaky(), newFlaky()}
		save(t, stores[on], readonly.State{Epoch: 5, ID: "a", Enabled: true})
		save(t, stores[1-on], readonly.State{Epoch: 5, ID: "b"})
		wants(t, pair(t, stores[0], stores[1]), 6, true)
		wants(t, stores[0], 6, true)
		wants(t, stores[1], 6, true)
	}
}

func TestBothDownIsAnError(t *testing.T) {
	first, second := newFlaky(), newFlaky()
	s := pair(t, first, second)
	first.down.Store(true)
	second.down.Store(true)
	_, err1 := s.Load(t.Context())
	_, err2 := s.Save(t.Context(), readonly.State{Epoch: 1})
	_, err3 := s.Acknowledged(t.Context())
	err4 := s.Acknowledge(t.Context(), "one", readonly.Ack{}, time.Minute)
	for i, err := range []error{err1, err2, err3, err4} {
		if !errors.Is(err, errDown) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

// An instance that reaches only the second store is heard of, and its goodbye reaches both.
func TestAcknowledgementsOfBoth(t *testing.T) {
	first, second := newFlaky(), newFlaky()
	here, there := pair(t, first, second), pair(t, first, second)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(here.Acknowledge(ctx, "here", readonly.Ack{Epoch: 1}, time.Minute))
	first.down.Store(true)
	must(there.Acknowledge(ctx, "there", readonly.Ack{Epoch: 1}, time.Minute))
	must(there.Acknowledge(ctx, "here", readonly.Ack{Epoch: 2}, time.Minute))
	first.down.Store(false)
	acks, err := here.Acknowledged(ctx)
	if err != nil || len(acks) != 2 || acks["here"].Epoch != 2 || acks["there"].Epoch != 1 {
		t.Fatalf("%v, %v", acks, err)
	}
	must(here.Acknowledge(ctx, "here", readonly.Ack{}, 0))
	if acks, err := here.Acknowledged(ctx); err != nil || len(acks) != 1 {
		t.Fatalf("after the goodbye %v, %v", acks, err)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	if _, err := pairstore.New(nil, nil, &pairstore.Options{Every: -1}); err == nil {
		t.Fatal("nothing was wrong")
	}
}
