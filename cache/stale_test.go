package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
)

// staled makes the entry of a key stale, as if its TTL had ended long ago.
func staled(t *testing.T, ctx context.Context, v *View[lead], id string, by time.Duration) {
	t.Helper()
	key := v.prefix + id
	raw, err := v.store.rdb.Get(ctx, key).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	h, payload, err := parseHeader(raw)
	if err != nil {
		t.Fatal(err)
	}
	now, err := v.store.rdb.Time(ctx).Result()
	if err != nil {
		t.Fatal(err)
	}
	h.soft = now.Add(-by).UnixMilli()
	if err := v.store.rdb.Set(ctx, key, append(appendHeader(nil, h), payload...), time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	if v.near != nil {
		v.near.drop(id)
	}
}

// inMode runs a test with and without the level in the process.
func inMode(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient, options ...ViewOption)) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		t.Run("redis", func(t *testing.T) { test(t, rdb) })
		t.Run("process", func(t *testing.T) { test(t, rdb, InProcess(Local{})) })
	})
}

func TestStaleWhileRevalidate(t *testing.T) {
	inMode(t, func(t *testing.T, rdb redis.UniversalClient, options ...ViewOption) {
		ctx := testContext(t)
		s := running(t, newStore(t, rdb, nil))
		leads := Of[lead](s, "lead", append(options, StaleWhileRevalidate(time.Minute))...)
		l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
		wantScore(t, l, err, 1)
		staled(t, ctx, leads, "1", time.Second)
		g := newGate()
		for range 5 { // while one loads behind them, all get the stale value at once
			l, err = leads.Load(ctx, "1", g.load)
			wantScore(t, l, err, 1)
		}
		<-g.entered
		l, err = leads.Get(ctx, "1")
		wantScore(t, l, err, 1)
		if n := testutil.ToFloat64(leads.looked[resultStale]); n != 6 {
			t.Errorf("%v stale answers counted, want 6", n)
		}
		g.release <- lead{Score: 2}
		eventually(t, "the new value", func() bool { l, err := leads.Get(ctx, "1"); return err == nil && l.Score == 2 })
		if n := g.calls.Load(); n != 1 {
			t.Errorf("%d loads", n)
		}
	})
}

// One of all processes loads a stale value anew.
func TestOneProcessRevalidates(t *testing.T) {
	ctx := testContext(t)
	here := newStore(t, client(t, six.Get(t)), nil)
	a, b := Of[lead](here, "lead", StaleWhileRevalidate(time.Minute)), Of[lead](sibling(t, here), "lead", StaleWhileRevalidate(time.Minute))
	l, err := a.Load(ctx, "1", loads(lead{Score: 1}))
	wantScore(t, l, err, 1)
	staled(t, ctx, a, "1", time.Second)
	g, h := newGate(), newGate()
	l, err = a.Load(ctx, "1", g.load)
	wantScore(t, l, err, 1)
	<-g.entered
	l, err = b.Load(ctx, "1", h.load)
	wantScore(t, l, err, 1)
	eventually(t, "the other process gives up", func() bool { _, runs := b.refreshing.Load(b.prefix + "1"); return !runs })
	g.release <- lead{Score: 2}
	eventually(t, "both have the new value", func() bool {
		la, erra := a.Get(ctx, "1")
		lb, errb := b.Get(ctx, "1")
		return erra == nil && errb == nil && la.Score == 2 && lb.Score == 2
	})
	if h.calls.Load() != 0 {
		t.Error("both loaded")
	}
}

// A refresh that fails is not tried again at once.
func TestFailedRevalidationIsLeftAlone(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](newStore(t, client(t, one.Get(t)), nil), "lead", StaleWhileRevalidate(time.Minute))
	l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
	wantScore(t, l, err, 1)
	staled(t, ctx, leads, "1", time.Second)
	calls := 0
	fails := func(context.Context, string) (lead, error) { calls++; return lead{}, errors.New("away") }
	for range 20 {
		l, err = leads.Load(ctx, "1", fails)
		wantScore(t, l, err, 1)
		eventually(t, "the refresh ends", func() bool { _, runs := leads.refreshing.Load(leads.prefix + "1"); return !runs })
	}
	if calls != 1 {
		t.Errorf("%d loads in a moment", calls)
	}
	if n := testutil.ToFloat64(leads.store.in.refreshes.WithLabelValues("lead", "error")); n != 1 {
		t.Errorf("%v failed refreshes counted", n)
	}
}

func TestStaleIfError(t *testing.T) {
	away := errors.New("away")
	for name, c := range map[string]struct {
		load Loader[lead]
		want int64
		err  error
	}{
		"error":     {func(context.Context, string) (lead, error) { return lead{}, away }, 1, nil},
		"panic":     {func(context.Context, string) (lead, error) { panic("boom") }, 1, nil},
		"timeout":   {func(ctx context.Context, _ string) (lead, error) { <-ctx.Done(); return lead{}, ctx.Err() }, 1, nil},
		"not found": {func(context.Context, string) (lead, error) { return lead{}, ErrNotFound }, 0, ErrNotFound},
		"answer":    {loads(lead{Score: 2}), 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, rdb redis.UniversalClient) {
				ctx := testContext(t)
				s := newStore(t, rdb, func(o *Options) {
					if name == "timeout" {
						o.LoadTimeout = 200 * time.Millisecond
					}
				})
				leads := Of[lead](s, "lead", StaleIfError(time.Minute))
				if err := leads.Set(ctx, "1", lead{Score: 1}); err != nil { // which LoadTimeout does not bound
					t.Fatal(err)
				}
				staled(t, ctx, leads, "1", time.Second)
				if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
					t.Errorf("Get served what is for errors only: %v", err)
				}
				l, err := leads.Load(ctx, "1", c.load)
				if !errors.Is(err, c.err) || l.Score != c.want {
					t.Errorf("got %+v, %v", l, err)
				}
				want := 1.0
				if c.err != nil || c.want == 2 {
					want = 0
				}
				if n := testutil.ToFloat64(s.in.fallbacks.WithLabelValues("lead")); n != want {
					t.Errorf("%v fallbacks counted, want %v", n, want)
				}
			})
		})
	}
}

// Stale or not: what is older than the caller's own write is not for it, and what was invalidated is for nobody.
func TestStaleValuesAreNeverWrong(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead", StaleIfError(time.Minute), StaleWhileRevalidate(time.Second))
		fails := func(context.Context, string) (lead, error) { return lead{}, errors.New("away") }
		l, err := leads.Load(ctx, "1", loads(lead{Score: 1}, at(5)))
		wantScore(t, l, err, 1)
		staled(t, ctx, leads, "1", 2*time.Second)
		if l, err := leads.Load(wrote(ctx, at(6)), "1", fails); err == nil {
			t.Errorf("the caller that wrote at 6 got %+v", l)
		}
		l, err = leads.Load(wrote(ctx, at(5)), "1", fails)
		wantScore(t, l, err, 1)
		if err := leads.Delete(ctx, "1"); err != nil {
			t.Fatal(err)
		}
		if l, err := leads.Load(ctx, "1", fails); err == nil {
			t.Errorf("deleted, and got %+v", l)
		}
	})
}

func TestStaleWindowEnds(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](newStore(t, client(t, one.Get(t)), nil), "lead", StaleIfError(2*time.Second), StaleWhileRevalidate(time.Second))
	away := errors.New("away")
	fails := func(context.Context, string) (lead, error) { return lead{}, away }
	l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
	wantScore(t, l, err, 1)
	staled(t, ctx, leads, "1", 3*time.Second)
	if _, err := leads.Load(ctx, "1", fails); !errors.Is(err, away) {
		t.Errorf("got %v", err)
	}
}

func TestSoftTimeout(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](newStore(t, client(t, one.Get(t)), nil), "lead", StaleIfError(time.Minute), SoftTimeout(20*time.Millisecond))
	l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
	wantScore(t, l, err, 1)
	staled(t, ctx, leads, "1", time.Second)
	g := newGate()
	l, err = leads.Load(ctx, "1", g.load)
	wantScore(t, l, err, 1)
	<-g.entered
	g.release <- lead{Score: 2} // the loader went on
	eventually(t, "the new value", func() bool { l, err := leads.Get(ctx, "1"); return err == nil && l.Score == 2 })
}

func TestShedLoadServesStale(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](newStore(t, client(t, one.Get(t)), func(o *Options) { o.MaxLoads, o.LoadWait = 1, -1 }), "lead", StaleIfError(time.Minute))
	l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
	wantScore(t, l, err, 1)
	staled(t, ctx, leads, "1", time.Second)
	g := newGate()
	other := background(ctx, leads, "2", g.load)
	select {
	case <-g.entered:
	case o := <-other:
		t.Fatalf("the load that takes all turns ended: %v", o.err)
	}
	l, err = leads.Load(ctx, "1", loads(lead{Score: 2}))
	wantScore(t, l, err, 1)
	if _, err := leads.Load(ctx, "3", loads(lead{})); !errors.Is(err, ErrShed) {
		t.Errorf("got %v", err)
	}
	g.release <- lead{}
	<-other
}

// stuckCodec blocks the store's part of a load, when its loader has returned.
type stuckCodec struct {
	JSON
	entered, release chan struct{}
}

func (c stuckCodec) Encode(v any) ([]byte, error) {
	if v.(lead).Score == 1 {
		c.entered <- struct{}{}
		<-c.release
	}
	return c.JSON.Encode(v)
}

// MaxLoads is about the origin: what is being stored takes no turn.
func TestStoringTakesNoTurn(t *testing.T) {
	ctx := testContext(t)
	codec := stuckCodec{entered: make(chan struct{}), release: make(chan struct{})}
	leads := Of[lead](newStore(t, client(t, one.Get(t)), func(o *Options) { o.MaxLoads, o.LoadWait = 1, -1 }), "lead", WithCodec(codec))
	first := background(ctx, leads, "1", loads(lead{Score: 1}))
	<-codec.entered
	l, err := leads.Load(ctx, "2", loads(lead{Score: 2}))
	wantScore(t, l, err, 2)
	many, err := leads.LoadMany(ctx, []string{"3"}, func(context.Context, []string) (map[string]lead, error) {
		return map[string]lead{"3": {Score: 3}}, nil
	})
	if err != nil || many["3"].Score != 3 {
		t.Errorf("LoadMany: %v, %v", many, err)
	}
	close(codec.release)
	o := <-first
	wantScore(t, o.lead, o.err, 1)
}

func TestEarlyRefresh(t *testing.T) {
	v := &viewState{opts: viewOptions{early: 1}}
	count := func(left time.Duration) (n int) {
		for range 10_000 {
			if v.early(&header{kind: kindValue, cost: 100_000}, left) { // 100 ms
				n++
			}
		}
		return n
	}
	// The share is exp(-left/(beta*cost)).
	for _, c := range []struct {
		left     time.Duration
		low, top int
	}{{time.Second, 0, 12}, {100 * time.Millisecond, 3400, 3960}, {10 * time.Millisecond, 8900, 9200}, {0, 10_000, 10_000}} {
		if n := count(c.left); n < c.low || n > c.top {
			t.Errorf("%v before the end: %d of 10,000 refresh, want %d to %d", c.left, n, c.low, c.top)
		}
	}
	v.opts.early = 0
	if count(0) != 0 {
		t.Error("it is off")
	}
	inMode(t, func(t *testing.T, rdb redis.UniversalClient, options ...ViewOption) {
		ctx := testContext(t)
		leads := Of[lead](running(t, newStore(t, rdb, nil)), "lead", append(options, EarlyRefresh(10), Jitter(0))...)
		for id, load := range map[string]func(lead) (lead, error){
			"1": func(l lead) (lead, error) { return leads.Load(ctx, "1", loads(l)) },
			"2": func(l lead) (lead, error) {
				found, err := leads.LoadMany(ctx, []string{"2"}, ofEach(loads(l)))
				return found["2"], err
			},
		} {
			l, err := load(lead{Score: 1})
			wantScore(t, l, err, 1)
			key := leads.prefix + id
			if err := rdb.SetRange(ctx, key, 64, "\xff\xff\xff\xff").Err(); err != nil { // it took longer than it lives
				t.Fatal(err)
			}
			if leads.near != nil {
				eventually(t, "it is kept", func() bool {
					if _, err := leads.Get(ctx, id); err != nil {
						t.Fatal(err)
					}
					r := inProcess(leads, id)
					return r != nil && r.rest.header.cost == 1<<32-1
				})
			}
			eventually(t, "a refresh before the end", func() bool {
				l, err := load(lead{Score: 2})
				if err != nil {
					t.Fatal(err)
				}
				return l.Score == 2
			})
		}
	})
}

// scripts counts the scripts that a client runs.
type scripts struct{ n atomic.Int64 }

func (h *scripts) note(cmds ...redis.Cmder) {
	for _, cmd := range cmds {
		if name := cmd.Name(); name == "evalsha" || name == "eval" {
			h.n.Add(1)
		}
	}
}

func (h *scripts) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *scripts) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { h.note(cmd); return next(ctx, cmd) }
}

func (h *scripts) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { h.note(cmds...); return next(ctx, cmds) }
}

// A refresh for which the origin has no room is not tried again by every caller.
func TestShedRefreshIsLeftAlone(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	h := new(scripts)
	rdb.AddHook(h)
	leads := Of[lead](newStore(t, rdb, func(o *Options) { o.MaxLoads, o.LoadWait = 1, -1 }), "lead", StaleWhileRevalidate(time.Minute))
	l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
	wantScore(t, l, err, 1)
	staled(t, ctx, leads, "1", time.Second)
	g := newGate()
	other := background(ctx, leads, "2", g.load)
	<-g.entered
	before, calls, began := h.n.Load(), 0, time.Now()
	for ; time.Since(began) < time.Second/2 || calls < 100; calls++ {
		l, err = leads.Load(ctx, "1", loads(lead{Score: 2}))
		wantScore(t, l, err, 1)
	}
	tries := int64(time.Since(began)/shedPause) + 2
	if n := h.n.Load() - before; n > 2*tries+1 { // each claims and lets go; the other load keeps its claim
		t.Errorf("%d scripts for %d stale answers in %v", n, calls, time.Since(began))
	}
	g.release <- lead{}
	<-other
	eventually(t, "it is refreshed when there is room", func() bool {
		l, err := leads.Load(ctx, "1", loads(lead{Score: 2}))
		return err == nil && l.Score == 2
	})
}
