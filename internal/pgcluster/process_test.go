package pgcluster_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"
)

func TestFreezeAndThaw(t *testing.T) {
	c := shared.Get(t)
	database, _ := notes(t, c)
	frozen := c.Replica(0)
	old := connect(t, frozen, database)
	frozen.Freeze()
	defer frozen.Thaw()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := old.Exec(ctx, "select 1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a query on an open connection: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := frozen.Connect(ctx, database); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a new connection: %v", err)
	}
	frozen.Thaw()
	if n := get[int](t, connect(t, frozen, database), count); n != 1 {
		t.Errorf("thawed: %d rows, want 1", n)
	}
}

func TestKillAndStartAgain(t *testing.T) {
	c := shared.Get(t)
	database, primary := notes(t, c)
	ctx := within(t, 30*time.Second)
	for _, s := range c.Servers() {
		addr := s.Addr()
		s.Kill()
		if _, err := s.Connect(ctx, database); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s, killed: %v", s.Name(), err)
		}
		must(t, s.Start(ctx))
		if err := s.Start(ctx); err == nil {
			t.Errorf("%s was started twice", s.Name())
		}
		if s.Addr() != addr {
			t.Errorf("%s came back at another address", s.Name())
		}
		if n := get[int](t, connect(t, s, database), count); n != 1 {
			t.Errorf("%s came back with %d rows, want 1", s.Name(), n)
		}
	}
	if err := primary.Ping(ctx); err == nil {
		t.Error("a connection outlived the primary's death")
	}
	for _, s := range c.Servers()[1:] {
		must(t, s.WaitCaughtUp(ctx)) // they stream again, from a primary that was killed too
	}
}

func TestStopAndStartAgain(t *testing.T) {
	c := shared.Get(t)
	database, primary := notes(t, c)
	ctx := within(t, 30*time.Second)
	must(t, c.Primary().Stop(ctx))
	if _, err := primary.Exec(ctx, "select 1"); sqlState(err) != "57P01" {
		t.Errorf("on an open connection: %v", err)
	}
	if _, err := c.Primary().Connect(ctx, database); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v", err)
	}
	if n := get[int](t, connect(t, c.Replica(0), database), count); n != 1 {
		t.Errorf("the replica has %d rows without its primary", n)
	}
	must(t, c.Primary().Start(ctx))
	execute(t, connect(t, c.Primary(), database), "insert into notes values (2)")
	must(t, c.Replica(0).WaitCaughtUp(ctx))
}
