package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A warming makes way while the origin is busy, and goes on afterwards.
func TestWarmingMakesWay(t *testing.T) {
	ctx := testContext(t)
	var busy atomic.Bool
	var asked atomic.Int64
	s := newStore(t, client(t, one.Get(t)), func(o *Options) {
		o.WarmGate = func(context.Context) error {
			asked.Add(1)
			if busy.Load() {
				return errors.New("the pool is nearly used up")
			}
			return nil
		}
	})
	leads := Of[lead](s, "lead")
	var calls atomic.Int64
	ids := make([]string, 300)
	for i := range ids {
		ids[i] = fmt.Sprintf("%04d", i)
	}
	err := leads.DeclareWarm(WarmSet[lead]{
		Name: "all", Keys: func(context.Context) ([]string, error) { return ids, nil },
		Load: func(_ context.Context, id string) (lead, error) {
			if calls.Add(1) == 1 {
				busy.Store(true)
			}
			return lead{ID: id}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := s.Warm(ctx); done <- err }()
	eventually(t, "it asks again and again", func() bool { return asked.Load() >= 3 })
	if n := calls.Load(); n > 8 {
		t.Errorf("%d loads while the origin was busy", n)
	}
	busy.Store(false)
	if err := <-done; err != nil || calls.Load() != int64(len(ids)) {
		t.Errorf("%d loads, %v", calls.Load(), err)
	}
	busy.Store(true)
	if err := leads.Delete(ctx, ids[0]); err != nil {
		t.Fatal(err)
	}
	ended, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	if _, err := s.Warm(ended); err == nil || !strings.Contains(err.Error(), "nearly used up") {
		t.Errorf("got %v", err)
	}
}

func TestReadyWaitsForTheFirstWarming(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), func(o *Options) { o.WarmBeforeReady = time.Minute })
	leads, g := Of[lead](s, "lead"), newGate()
	err := leads.DeclareWarm(WarmSet[lead]{Name: "all", Keys: func(context.Context) ([]string, error) { return []string{"1"}, nil }, Load: g.load})
	if err != nil {
		t.Fatal(err)
	}
	running(t, s)
	<-g.entered
	if err := s.Ready(ctx); !errors.Is(err, errWarming) {
		t.Errorf("got %v", err)
	}
	g.release <- lead{Score: 1}
	eventually(t, "ready", func() bool { return s.Ready(ctx) == nil })
	l, err := leads.Get(ctx, "1")
	wantScore(t, l, err, 1)
}

// A warming that does not end holds Ready up for as long as it may, whatever it hangs on.
func TestReadyGoesOnWithoutTheFirstWarming(t *testing.T) {
	const most = 300 * time.Millisecond
	for name, set := range map[string]func(hang <-chan struct{}) WarmSet[lead]{
		"a load": func(hang <-chan struct{}) WarmSet[lead] {
			return WarmSet[lead]{Keys: numbers(3), Load: func(context.Context, string) (lead, error) { <-hang; return lead{}, nil }}
		},
		"the keys": func(hang <-chan struct{}) WarmSet[lead] {
			return WarmSet[lead]{Load: loads(lead{}), Keys: func(context.Context) ([]string, error) { <-hang; return nil, nil }}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			s := newStore(t, client(t, one.Get(t)), func(o *Options) { o.WarmBeforeReady, o.LoadTimeout = most, time.Minute })
			hang := make(chan struct{})
			declared := set(hang)
			declared.Name = "all"
			if err := Of[lead](s, "lead").DeclareWarm(declared); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			running(t, s)
			t.Cleanup(func() { close(hang) })
			eventually(t, "ready", func() bool { return s.Ready(ctx) == nil })
			if took := time.Since(began); took < most {
				t.Errorf("ready after %v, while the sets are warmed", took)
			}
		})
	}
}
