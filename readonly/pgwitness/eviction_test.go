package pgwitness_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/pairstore"
	"github.com/scaleaware/scaleaware/readonly/pgstore"
	"github.com/scaleaware/scaleaware/readonly/redisstore"
	"github.com/scaleaware/scaleaware/redisclient"
)

// Redis throws the state away for want of memory while no instance lives that knows it. The next one learns it from PostgreSQL,
// refuses writes, and puts it back.
func TestEvictedStateIsRestoredFromPostgreSQL(t *testing.T) {
	r := newRig(t, nil)
	if _, err := r.pool.Exec(r.ctx, pgstore.Schema); err != nil {
		t.Fatal(err)
	}
	node := redisServer.Get(t).Nodes()[0]
	rdb := redisclient.New(redisclient.Options(redisServer.Get(t).Addrs()...))
	defer rdb.Close()
	const prefix = "evicted:"
	instance := func(name string) (mode *readonly.Switch, stop func()) {
		inRedis, err1 := redisstore.New(rdb, &redisstore.Options{Prefix: prefix})
		inPostgres, err2 := pgstore.New(r.pool, nil)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		both, err := pairstore.New(inRedis, inPostgres, nil)
		if err != nil {
			t.Fatal(err)
		}
		if mode, err = readonly.New(both, &readonly.Options{Instance: name}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(r.ctx)
		done := make(chan error, 1)
		go func() { done <- mode.Run(ctx) }()
		return mode, func() { cancel(); <-done }
	}
	known := func(mode *readonly.Switch) (state readonly.State) {
		for ok := false; !ok; state, ok = mode.State() {
			if r.ctx.Err() != nil {
				t.Fatal("the store was not reached")
			}
			time.Sleep(5 * time.Millisecond)
		}
		return state
	}
	first, stop := instance("first")
	known(first)
	if _, err := first.Enable(r.ctx, readonly.Change{Reason: "moving"}); err != nil {
		t.Fatal(err)
	}
	stop()
	const key = prefix + "{readonly}:state"
	if rdb.Exists(r.ctx, key).Val() != 1 {
		t.Fatal("the state is not where this test looks")
	}
	if err := node.SetMaxMemory(r.ctx, 3<<20, "allkeys-lru"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(node.SetMaxMemory(context.Background(), 0, "noeviction"), rdb.FlushAll(context.Background()).Err()); err != nil {
			t.Error(err)
		}
	}()
	for n := 0; rdb.Exists(r.ctx, key).Val() == 1; n++ {
		if n > 20_000 {
			t.Fatal("it was not evicted")
		}
		if err := rdb.Set(r.ctx, fmt.Sprint("flood:", n), strings.Repeat("x", 4096), 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	second, stop := instance("second")
	defer stop()
	if state := known(second); !state.Enabled || state.Reason != "moving" || second.AllowWrite(r.ctx) == nil {
		t.Errorf("after the eviction the state is %+v", state)
	}
	for rdb.Exists(r.ctx, key).Val() == 0 {
		if r.ctx.Err() != nil {
			t.Fatal("the state was not put back")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
