package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

func TestStampedeLoadsOnce(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		var calls atomic.Int64
		var wg sync.WaitGroup
		errs := make(chan error, 1000)
		for range 1000 {
			wg.Go(func() {
				l, err := leads.Load(ctx, "1", func(ctx context.Context, id string) (lead, error) {
					calls.Add(1)
					return lead{ID: id, Score: 7}, nil
				})
				if err != nil || l.Score != 7 {
					errs <- fmt.Errorf("%+v: %w", l, err)
				}
			})
		}
		wg.Wait()
		if len(errs) > 0 {
			t.Errorf("%d failed: %v", len(errs), <-errs)
		}
		if n := calls.Load(); n != 1 {
			t.Errorf("%d loads", n)
		}
	})
}

func TestFirstCallersEndIsNotTheOthers(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads, g := Of[lead](newStore(t, rdb, nil), "lead"), newGate()
		first, cancel := context.WithCancel(ctx)
		a := background(first, leads, "1", g.load)
		<-g.entered
		b := background(ctx, leads, "1", g.load)
		eventually(t, "the second caller waits", func() bool { return leads.window.sum(time.Now())[resultMiss] == 2 })
		cancel()
		if got := <-a; !errors.Is(got.err, context.Canceled) {
			t.Errorf("first: %+v", got)
		}
		g.release <- lead{Score: 3}
		if got := <-b; got.err != nil || got.lead.Score != 3 {
			t.Errorf("second: %+v", got)
		}
		if n := g.calls.Load(); n != 1 {
			t.Errorf("%d loads", n)
		}
		l, err := leads.Get(ctx, "1")
		wantScore(t, l, err, 3)
	})
}

func TestWaitersShareNoMemory(t *testing.T) {
	ctx := testContext(t)
	tags := Of[map[string]int](newStore(t, client(t, one.Get(t)), nil), "tags")
	entered, release := make(chan bool, 1), make(chan bool)
	load := func(context.Context, string) (map[string]int, error) {
		entered <- true
		<-release
		return map[string]int{"a": 1}, nil
	}
	results := make(chan map[string]int, 2)
	call := func() {
		m, err := tags.Load(ctx, "1", load)
		if err == nil {
			m["mine"]++
		}
		results <- m
	}
	go call()
	<-entered
	go call()
	eventually(t, "both wait", func() bool { return tags.window.sum(time.Now())[resultMiss] == 2 })
	close(release)
	for range 2 {
		if m := <-results; m["mine"] != 1 || m["a"] != 1 {
			t.Errorf("got %v", m)
		}
	}
}

func TestLoaderPanicFreesAllWaiters(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			leads := Of[lead](newStore(t, client(t, one.Get(t)), nil), "lead")
			release := make(chan bool)
			load := func(context.Context, string) (lead, error) { <-release; end(); return lead{}, nil }
			a, b := background(ctx, leads, "1", load), background(ctx, leads, "1", load)
			eventually(t, "both wait", func() bool { return leads.window.sum(time.Now())[resultMiss] == 2 })
			close(release)
			for _, done := range []<-chan outcome{a, b} {
				got := <-done
				var p *PanicError
				if !errors.As(got.err, &p) || len(p.Stack) == 0 {
					t.Errorf("got %+v", got)
				}
			}
			l, err := leads.Load(ctx, "1", loads(lead{Score: 2})) // and the key is not stuck
			wantScore(t, l, err, 2)
		})
	}
}

func TestLoaderErrorIsNotCached(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](newStore(t, client(t, one.Get(t)), nil), "lead", NegativeTTL(time.Minute))
	away := errors.New("origin is away")
	_, err := leads.Load(ctx, "1", func(context.Context, string) (lead, error) { return lead{}, away })
	if !errors.Is(err, away) {
		t.Errorf("got %v", err)
	}
	l, err := leads.Load(ctx, "1", loads(lead{Score: 2}))
	wantScore(t, l, err, 2)
}

func TestNegativeEntries(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		with, without := Of[lead](s, "with", NegativeTTL(time.Minute)), Of[lead](s, "without")
		var calls atomic.Int64
		nothing := func(_ context.Context, id string) (lead, error) {
			calls.Add(1)
			return lead{}, fmt.Errorf("lead %s: %w", id, ErrNotFound)
		}
		for range 3 {
			if _, err := with.Load(ctx, "1", nothing); !errors.Is(err, ErrNotFound) {
				t.Fatalf("got %v", err)
			}
			if _, err := without.Load(ctx, "1", nothing); !errors.Is(err, ErrNotFound) {
				t.Fatalf("got %v", err)
			}
		}
		if n := calls.Load(); n != 1+3 {
			t.Errorf("%d loads", n)
		}
		if _, err := with.Get(ctx, "1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v", err)
		}
		if err := with.Delete(ctx, "1"); err != nil {
			t.Fatal(err)
		}
		l, err := with.Load(ctx, "1", loads(lead{Score: 4}))
		wantScore(t, l, err, 4)
	})
}

func TestLoaderThatIgnoresItsDeadline(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), func(o *Options) { o.LoadTimeout = 30 * time.Millisecond; o.MaxLoads = 1; o.LoadWait = -1 })
	leads := Of[lead](s, "lead")
	stuck := make(chan bool)
	_, err := leads.Load(ctx, "1", func(context.Context, string) (lead, error) { <-stuck; return lead{}, nil })
	if !errors.Is(err, ErrLoadTimeout) {
		t.Errorf("got %v", err)
	}
	// It still holds its place at the origin.
	if _, err := leads.Load(ctx, "2", loads(lead{})); !errors.Is(err, ErrShed) {
		t.Errorf("got %v", err)
	}
	close(stuck)
	eventually(t, "the place is free", func() bool { _, err := leads.Load(ctx, "2", loads(lead{})); return err == nil })
}

func TestOriginIsNeverAskedMoreThanAllowed(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, func(o *Options) { o.MaxLoads = 4; o.LoadWait = 20 * time.Second }), "lead")
		var now, most atomic.Int64
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				_, err := leads.Load(ctx, fmt.Sprint(i), func(context.Context, string) (lead, error) {
					n := now.Add(1)
					defer now.Add(-1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					runtime.Gosched()
					return lead{}, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() > 4 {
			t.Errorf("%d loads at a time", most.Load())
		}
	})
}

func TestUnusableValueIsAMissAndOverwritten(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, func(o *Options) { o.MaxValueBytes = 1000 })
		leads := Of[lead](s, "lead")
		valid := appendHeader(nil, header{kind: kindValue, codec: 1, schema: leads.schema, gen: 1})
		later := append([]byte(nil), valid...)
		later[1] = wireVersion + 1
		for name, raw := range map[string]string{
			"no header": "{}", "cut payload": string(valid) + `{"ID":`, "later version": string(later) + "{}",
			"other codec":  string(appendHeader(nil, header{kind: kindValue, codec: 99, schema: leads.schema})) + "{}",
			"other schema": string(appendHeader(nil, header{kind: kindValue, codec: 1, schema: 1})) + "{}",
			"oversize":     string(valid) + `{"ID":"` + strings.Repeat("x", 1000) + `"}`, "a list": "",
		} {
			key := leads.prefix + name
			err := rdb.Set(ctx, key, raw, time.Minute).Err()
			if name == "a list" {
				rdb.Del(ctx, key)
				err = rdb.RPush(ctx, key, "x").Err()
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := leads.Get(ctx, name); !errors.Is(err, ErrMiss) {
				t.Errorf("%s: Get: %v", name, err)
			}
			l, err := leads.Load(ctx, name, loads(lead{Score: 5}))
			wantScore(t, l, err, 5)
			if l, err := leads.Get(ctx, name); err != nil || l.Score != 5 {
				t.Errorf("%s: not overwritten: %+v, %v", name, l, err)
			}
		}
	})
}

func TestOversizeIsReturnedAndNotStored(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](newStore(t, client(t, one.Get(t)), func(o *Options) { o.MaxValueBytes = 100 }), "lead")
	big := lead{ID: strings.Repeat("x", 200)}
	l, err := leads.Load(ctx, "1", func(context.Context, string) (lead, error) { return big, nil })
	if err != nil || l != big {
		t.Errorf("got %v", err)
	}
	if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("got %v", err)
	}
	if err := leads.Set(ctx, "1", big); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestTTLIsJitteredDownwards(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	leads := Of[lead](newStore(t, rdb, nil), "lead", TTL(time.Hour), Jitter(0.2))
	seen := map[int64]bool{}
	for i := range 20 {
		if _, err := leads.Load(ctx, fmt.Sprint(i), loads(lead{})); err != nil {
			t.Fatal(err)
		}
		ttl := rdb.PTTL(ctx, leads.prefix+fmt.Sprint(i)).Val()
		if ttl > time.Hour || ttl < 47*time.Minute {
			t.Errorf("TTL %v", ttl)
		}
		seen[int64(ttl/time.Second)] = true
	}
	if len(seen) < 5 {
		t.Errorf("all end together: %v", seen)
	}
}

// What a loader does with the news that there is nothing is as old as they are.
func TestNotFoundInsideALoaderHasAnAge(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	inner, outer := Of[lead](s, "inner", NegativeTTL(time.Minute)), Of[lead](s, "outer")
	old := func(ctx context.Context, _ string) (lead, error) {
		scaleaware.WatermarkFrom(ctx).Saw(at(5))
		return lead{}, ErrNotFound
	}
	one := func(ctx context.Context, id string) error {
		_, err := inner.Load(ctx, id, old)
		return err
	}
	many := func(ctx context.Context, id string) error {
		found, err := inner.LoadMany(ctx, []string{id}, ofEach(old))
		if err == nil && len(found) == 0 {
			err = ErrNotFound
		}
		return err
	}
	for name, c := range map[string]struct {
		nested func(ctx context.Context, id string) error
		cached bool
	}{"loaded": {one, false}, "cached": {one, true}, "LoadMany": {many, false}, "LoadMany, cached": {many, true}} {
		if c.cached {
			if err := c.nested(ctx, name); !errors.Is(err, ErrNotFound) {
				t.Fatal(name, err)
			}
		}
		l, err := outer.Load(ctx, name, func(ctx context.Context, id string) (lead, error) {
			if err := c.nested(ctx, id); !errors.Is(err, ErrNotFound) {
				t.Error(name, err)
			}
			scaleaware.WatermarkFrom(ctx).Saw(at(9))
			return lead{Score: 1}, nil
		})
		wantScore(t, l, err, 1)
		if _, err := outer.Get(wrote(ctx, at(7)), name); !errors.Is(err, ErrMiss) {
			t.Errorf("%s: who wrote at 7 got what was made of an answer as of 5: %v", name, err)
		}
	}
}

// panicking is a codec that panics when it is told to.
type panicking struct {
	JSON
	encodes, decodes *atomic.Bool
}

func (p panicking) Encode(v any) ([]byte, error) {
	if p.encodes.Load() {
		panic("encode")
	}
	return p.JSON.Encode(v)
}

func (p panicking) Decode(data []byte, v any) error {
	if p.decodes.Load() {
		panic("decode")
	}
	return p.JSON.Decode(data, v)
}

// What the view was given panics behind the callers' backs: they get the value, which is not stored, and it is counted.
func TestPanicsOfAViewsOwnFunctions(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		there := sibling(t, s)
		var encodes, decodes atomic.Bool
		options := []ViewOption{
			WithCodec(panicking{encodes: &encodes, decodes: &decodes}),
			Tags(func(_ string, l *lead) []string { return []string{l.ID} }),
		}
		leads := Of[*lead](s, "lead", options...)
		failures := func(s *Store, task string) float64 {
			return testutil.ToFloat64(s.in.background.WithLabelValues("cache", task))
		}
		gone := func(_ context.Context, id string) (*lead, error) { return nil, nil }
		given := func(_ context.Context, id string) (*lead, error) { return &lead{ID: id}, nil }
		many := func(load Loader[*lead]) ManyLoader[*lead] {
			return func(ctx context.Context, ids []string) (map[string]*lead, error) {
				found := map[string]*lead{}
				for _, id := range ids {
					found[id], _ = load(ctx, id)
				}
				return found, nil
			}
		}
		for n, c := range []struct {
			task string
			load Loader[*lead]
		}{{"tags", gone}, {"encode", given}} {
			encodes.Store(c.task == "encode")
			want, _ := c.load(ctx, "1")
			l, err := leads.Load(ctx, "1", c.load)
			if err != nil || (l == nil) != (want == nil) {
				t.Errorf("%s: got %v, %v", c.task, l, err)
			}
			found, err := leads.LoadMany(ctx, []string{"2", "3"}, many(c.load))
			if err != nil || len(found) != 2 || (found["3"] == nil) != (want == nil) {
				t.Errorf("%s: got %v, %v", c.task, found, err)
			}
			if n := failures(s, c.task); n != 3 {
				t.Errorf("%s: %v failures", c.task, n)
			}
			if err := leads.Set(ctx, "1", want); err == nil {
				t.Errorf("%s: it was set", c.task)
			}
			for _, id := range []string{"1", "2", "3"} {
				if _, err := leads.Get(ctx, id); !errors.Is(err, ErrMiss) {
					t.Errorf("%d, %s was stored: %v", n, id, err)
				}
			}
			encodes.Store(false)
		}

		// What another process has stored cannot be decoded here.
		entered, release := make(chan bool), make(chan bool)
		first := make(chan error, 1)
		go func() {
			_, err := leads.Load(ctx, "4", func(ctx context.Context, id string) (*lead, error) {
				entered <- true
				<-release
				return given(ctx, id)
			})
			first <- err
		}()
		<-entered
		second := make(chan error, 1)
		go func() {
			l, err := Of[*lead](there, "lead", options...).Load(ctx, "4", given)
			if err == nil && l.ID != "4" {
				err = fmt.Errorf("got %+v", l)
			}
			second <- err
		}()
		eventually(t, "it waits", func() bool { return testutil.ToFloat64(there.in.waited.WithLabelValues("lead")) > 0 })
		decodes.Store(true)
		close(release)
		if err := errors.Join(<-first, <-second); err != nil {
			t.Error(err)
		}
		if failures(there, "decode") == 0 {
			t.Error("no failure to decode is counted")
		}
		decodes.Store(false)
	})
}
