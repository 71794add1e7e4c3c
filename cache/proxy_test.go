package cache

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/redisclient"
)

// proxied is a store that runs and reaches the server through a proxy alone, with a view that keeps in the process, and the
// same view of a process with a network of its own.
func proxied(t *testing.T, set func(*Options)) (p *faultconn.Proxy, here, there *View[lead]) {
	t.Helper()
	node := one.Get(t).Nodes()[0]
	p, err := faultconn.New(node.Addr())
	if err != nil {
		t.Fatal(err)
	}
	rdb := redisclient.New(redisclient.Options(p.Addr()))
	t.Cleanup(func() {
		rdb.Close()
		p.Close()
	})
	s := running(t, newStore(t, rdb, func(o *Options) {
		o.RedisTimeout = time.Second
		if set != nil {
			set(o)
		}
	}))
	other := newStore(t, client(t, one.Get(t)), func(o *Options) { o.Prefix = s.opts.Prefix })
	return p, Of[lead](s, "lead", InProcess(Local{})), Of[lead](other, "lead", InProcess(Local{}))
}

// newsOf changes what the origin and Redis have, elsewhere, and loads it here until that is given. While nothing is heard, what
// is kept is used for so long as Options.Silence says, and then the origin is asked, if not Redis.
func newsOf(t *testing.T, ctx context.Context, here, there *View[lead], score int64) {
	t.Helper()
	if err := there.Set(ctx, "1", lead{Score: score}); err != nil {
		t.Fatal(err)
	}
	o, set := here.store.opts, time.Now()
	for {
		began := time.Now()
		l, err := here.Load(ctx, "1", loads(lead{Score: score}))
		if took := time.Since(began); took > 3*o.RedisTimeout+slack { // to look, to begin, to store
			t.Errorf("a load took %v", took)
		}
		switch {
		case err == nil && l.Score == score:
			return
		case err != nil:
			t.Fatal(err)
		case began.Sub(set) > o.Silence+slack:
			t.Fatalf("got %d %v after %d was set", l.Score, began.Sub(set), score)
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}

// The network between a process and Redis delays, forgets and resets connections.
func TestNetworkFaults(t *testing.T) {
	for name, fault := range map[string]struct {
		begin func(p *faultconn.Proxy)
		heals bool // by itself: connections to come are good
	}{
		"delay":               {func(p *faultconn.Proxy) { p.Delay(faultconn.Both, 30*time.Millisecond) }, true},
		"slow answers":        {func(p *faultconn.Proxy) { p.Delay(faultconn.ToClient, 600*time.Millisecond) }, false},
		"half-open":           {(*faultconn.Proxy).HalfOpen, true},
		"orphaned":            {(*faultconn.Proxy).Orphan, true},
		"reset":               {(*faultconn.Proxy).Reset, true},
		"cut":                 {(*faultconn.Proxy).Cut, true},
		"answers do not come": {func(p *faultconn.Proxy) { p.Stall(faultconn.ToClient) }, false},
		"black hole":          {func(p *faultconn.Proxy) { p.Blackhole(faultconn.Both) }, false},
		"refused":             {func(p *faultconn.Proxy) { p.Refuse(); p.Reset() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			p, here, there := proxied(t, nil)
			newsOf(t, ctx, here, there, 1)
			settled(t, ctx, here, "1", loads(lead{Score: 1}))
			fault.begin(p)
			newsOf(t, ctx, here, there, 2)
			newsOf(t, ctx, here, there, 3)
			if !fault.heals {
				p.Heal()
			}
			covered(t, here.store)
			settled(t, ctx, here, "1", loads(lead{Score: 3}))
			if err := there.Set(ctx, "1", lead{Score: 4}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the news", func() bool { l, err := here.Get(ctx, "1"); return err == nil && l.Score == 4 })
		})
	}
}

// What is deleted over a network that swallows it is gone when the network is back.
func TestDeletesThroughABlackHole(t *testing.T) {
	ctx := testContext(t)
	p, here, there := proxied(t, func(o *Options) { o.RedisTimeout = 200 * time.Millisecond })
	for i := range 5 {
		settled(t, ctx, here, fmt.Sprint(i), loads(lead{Score: 1}))
	}
	p.Blackhole(faultconn.ToServer)
	for i := range 5 {
		if err := here.Delete(ctx, fmt.Sprint(i)); err == nil {
			t.Error("it is said to be deleted")
		}
		if l, err := here.Load(ctx, fmt.Sprint(i), loads(lead{Score: 2})); err != nil || l.Score != 2 {
			t.Errorf("here it is %+v, %v", l, err)
		}
	}
	p.Heal()
	for i := range 5 {
		eventually(t, "it is deleted", func() bool {
			l, err := there.Get(ctx, fmt.Sprint(i))
			return errors.Is(err, ErrMiss) || err == nil && l.Score == 2
		})
	}
}
