package cache

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

func TestLoadMany(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead", NegativeTTL(time.Minute))
		if err := leads.Set(ctx, "0", lead{Score: 100}); err != nil {
			t.Fatal(err)
		}
		var asked []string
		load := func(_ context.Context, ids []string) (map[string]lead, error) {
			asked = ids
			found := map[string]lead{}
			for _, id := range ids {
				if id != "none" {
					found[id] = lead{ID: id, Score: 1}
				}
			}
			return found, nil
		}
		ids := []string{"0", "1", "2", "3", "2", "none", ""}
		found, err := leads.LoadMany(ctx, ids, load)
		var failed KeyErrors
		if !errors.As(err, &failed) || len(failed) != 1 || !errors.Is(failed[""], ErrKey) {
			t.Errorf("got %v", err)
		}
		if len(found) != 4 || found["0"].Score != 100 || found["3"].ID != "3" {
			t.Errorf("got %v", found)
		}
		if !slices.Equal(asked, []string{"1", "2", "3", "none"}) {
			t.Errorf("the loader was asked for %q", asked)
		}
		asked = nil
		if found, err := leads.LoadMany(ctx, ids[:6], load); err != nil || len(found) != 4 || asked != nil {
			t.Errorf("all are cached: %v, %v, asked for %q", found, err, asked)
		}
	})
}

// What a batch that is not whole leaves out is not known to be missing.
func TestPartialBatchIsNoNegativeAnswer(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead", NegativeTTL(time.Minute))
		away := errors.New("away")
		found, err := leads.LoadMany(ctx, []string{"1", "2", "3"}, func(context.Context, []string) (map[string]lead, error) {
			return map[string]lead{"1": {Score: 1}}, KeyErrors{"2": away}
		})
		var failed KeyErrors
		if !errors.As(err, &failed) || len(failed) != 2 || !errors.Is(failed["2"], away) || failed["3"] == nil || found["1"].Score != 1 || len(found) != 1 {
			t.Errorf("got %v, %v", found, err)
		}
		found, err = leads.LoadMany(ctx, []string{"1", "2", "3"}, func(_ context.Context, ids []string) (map[string]lead, error) {
			if !slices.Equal(ids, []string{"2", "3"}) {
				t.Errorf("asked for %q", ids)
			}
			return map[string]lead{"2": {Score: 2}, "3": {Score: 3}}, nil
		})
		if err != nil || len(found) != 3 || found["3"].Score != 3 {
			t.Errorf("got %v, %v", found, err)
		}
		found, err = leads.LoadMany(ctx, []string{"4"}, func(context.Context, []string) (map[string]lead, error) {
			return map[string]lead{"4": {Score: 4}}, away
		})
		if !errors.Is(err, away) || len(found) != 0 {
			t.Errorf("got %v, %v", found, err)
		}
	})
}

// Of what a batch that is not whole leaves out nothing is known, whichever others of it do not exist.
func TestMissingKeyOfAPartialBatchTakesNoneAlong(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](newStore(t, client(t, one.Get(t)), nil), "lead", NegativeTTL(time.Minute))
	away, ids := errors.New("away"), []string{"1", "2", "3", "4"}
	found, err := leads.LoadMany(ctx, ids, func(context.Context, []string) (map[string]lead, error) {
		return map[string]lead{"1": {Score: 1}}, KeyErrors{"2": ErrNotFound, "4": away}
	})
	var failed KeyErrors
	if !errors.As(err, &failed) || len(failed) != 2 || !errors.Is(failed["3"], away) || !errors.Is(failed["4"], away) || len(found) != 1 {
		t.Errorf("got %v, %v", found, err)
	}
	for id, want := range map[string]error{"1": nil, "2": ErrNotFound, "3": ErrMiss, "4": ErrMiss} {
		if _, err := leads.Get(ctx, id); !errors.Is(err, want) {
			t.Errorf("%s: %v", id, err)
		}
	}
	found, err = leads.LoadMany(ctx, ids[2:], func(context.Context, []string) (map[string]lead, error) {
		return nil, KeyErrors{"4": ErrNotFound} // which is whole: what it does not name does not exist, either
	})
	if err != nil || len(found) != 0 {
		t.Errorf("got %v, %v", found, err)
	}
	if _, err := leads.Get(ctx, "3"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// That something is not found, which is no key's error, says nothing of the keys, be it one.
func TestNotFoundOfAWholeBatch(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](newStore(t, client(t, one.Get(t)), nil), "lead", NegativeTTL(time.Minute))
	why := &PanicError{Value: "any type"}
	for name, whole := range map[string]error{"itself": ErrNotFound, "wrapped": fmt.Errorf("tenant: %w, %w", ErrNotFound, why)} {
		for n := range 2 {
			ids := []string{name, name + "2"}[:n+1]
			found, err := leads.LoadMany(ctx, ids, func(context.Context, []string) (map[string]lead, error) { return nil, whole })
			var failed KeyErrors
			if !errors.As(err, &failed) || len(failed) != len(ids) || len(found) != 0 || failed[name].Error() != whole.Error() {
				t.Errorf("%s of %d: got %v, %v", name, len(ids), found, err)
			}
			if got := (*PanicError)(nil); name == "wrapped" && (!errors.As(failed[name], &got) || got != why || !errors.Is(failed[name], why)) {
				t.Errorf("%v does not say why", failed[name])
			}
			for _, id := range ids {
				if _, err := leads.Get(ctx, id); !errors.Is(err, ErrMiss) {
					t.Errorf("%s of %d: %v", id, len(ids), err)
				}
			}
		}
	}
}

// Overlapping batches and single loads, in two processes, ask the origin once for each key.
func TestBatchesShareLoads(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		first := newStore(t, rdb, nil)
		stores := []*Store{first, sibling(t, first)}
		var loaded [30]atomic.Int64
		many := func(_ context.Context, ids []string) (map[string]lead, error) {
			found := map[string]lead{}
			for _, id := range ids {
				var n int64
				fmt.Sscan(id, &n)
				loaded[n].Add(1)
				found[id] = lead{ID: id, Score: n}
			}
			return found, nil
		}
		var wg sync.WaitGroup
		for i := range 20 {
			v := Of[lead](stores[i%2], "lead")
			wg.Go(func() {
				var ids []string
				for n := range 10 {
					ids = append(ids, fmt.Sprint(i+n))
				}
				found, err := v.LoadMany(ctx, ids, many)
				if err != nil || len(found) != 10 || found[ids[3]].ID != ids[3] {
					t.Errorf("%v, %v", found, err)
				}
			})
			wg.Go(func() {
				l, err := v.Load(ctx, fmt.Sprint(i), single(many))
				wantScore(t, l, err, int64(i))
			})
		}
		wg.Wait()
		for n := range 29 {
			if got := loaded[n].Load(); got != 1 {
				t.Errorf("key %d was loaded %d times", n, got)
			}
		}
	})
}

// queried is that something does not exist, and counts how often that is asked.
type queried struct{ times *atomic.Int64 }

func (queried) Error() string { return "deleted" }

func (q queried) Is(target error) bool {
	q.times.Add(1)
	return target == ErrNotFound
}

// What a batch's errors say of the keys that nothing is said of is found out once.
func TestErrorsOfABatchAreLookedThroughOnce(t *testing.T) {
	leads := Of[lead](newLocal(t, nil), "lead", InProcess(Local{}), NegativeTTL(time.Minute))
	const n = 1000
	var ids []string
	times, deleted := new(atomic.Int64), KeyErrors{}
	for i := range n {
		ids = append(ids, strconv.Itoa(i))
		if i < n/2 {
			deleted[ids[i]] = queried{times}
		}
	}
	found, err := leads.LoadMany(testContext(t), ids, func(context.Context, []string) (map[string]lead, error) { return nil, deleted })
	if err != nil || len(found) > 0 {
		t.Fatal(found, err)
	}
	if times.Load() > 20*n {
		t.Errorf("of %d keys it was asked %d times whether one does not exist", n, times.Load())
	}
}

func TestManyLoaderPanicFreesAll(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](newStore(t, client(t, one.Get(t)), nil), "lead")
	_, err := leads.LoadMany(ctx, []string{"1", "2"}, func(context.Context, []string) (map[string]lead, error) { panic("boom") })
	var failed KeyErrors
	if !errors.As(err, &failed) || len(failed) != 2 || !errors.As(failed["2"], new(*PanicError)) {
		t.Errorf("got %v", err)
	}
	began := time.Now()
	l, err := leads.Load(ctx, "1", loads(lead{Score: 2}))
	wantScore(t, l, err, 2)
	if time.Since(began) > claimTTL/2 {
		t.Error("the claim was not given up")
	}
}

// A loader that ends its goroutine has not taken too long.
func TestManyLoaderThatEndsItsGoroutineIsNoTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLocal(t, nil)
		leads := Of[lead](s, "lead", InProcess(Local{}))
		timeouts := func() float64 { return testutil.ToFloat64(s.in.loads.WithLabelValues("lead", "timeout")) }
		_, err := leads.LoadMany(t.Context(), []string{"1", "2"}, func(context.Context, []string) (map[string]lead, error) {
			runtime.Goexit()
			return nil, nil
		})
		synctest.Wait()
		if n := timeouts(); n != 0 || !errors.As(err, new(*PanicError)) {
			t.Errorf("%v timeouts, %v", n, err)
		}
		_, err = leads.LoadMany(t.Context(), []string{"1", "2"}, func(ctx context.Context, _ []string) (map[string]lead, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		synctest.Wait()
		if n := timeouts(); n != 1 || !errors.Is(err, ErrLoadTimeout) {
			t.Errorf("%v timeouts, %v", n, err)
		}
	})
}

// A batch that another fill overtakes, or that a delete fences, is not stored where it must not.
func TestBatchIsFenced(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		found, err := leads.LoadMany(ctx, []string{"1", "2"}, func(context.Context, []string) (map[string]lead, error) {
			if err := leads.Delete(ctx, "1"); err != nil {
				t.Error(err)
			}
			return map[string]lead{"1": {Score: 1}, "2": {Score: 2}}, nil
		})
		if err != nil || len(found) != 2 {
			t.Fatal(found, err)
		}
		if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("a load from before the delete was stored: %v", err)
		}
		l, err := leads.Get(ctx, "2")
		wantScore(t, l, err, 2)
	})
}

// pipelines counts what is sent to Redis.
type pipelines struct{ alone, together atomic.Int64 }

func (p *pipelines) DialHook(next redis.DialHook) redis.DialHook { return next }
func (p *pipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { p.alone.Add(1); return next(ctx, cmd) }
}

func (p *pipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { p.together.Add(1); return next(ctx, cmds) }
}

// A batch costs three round trips to each master: it looks up, begins, and stores, or lets others load. Each script costs one more
// when it is not known.
func TestBatchTakesThreePipelines(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		var ids []string
		for i := range landsAtATime {
			ids = append(ids, fmt.Sprint(i))
		}
		found := func(_ context.Context, ids []string) (map[string]lead, error) {
			found := map[string]lead{}
			for _, id := range ids {
				found[id] = lead{ID: id}
			}
			return found, nil
		}
		none := func(context.Context, []string) (map[string]lead, error) { return nil, nil }
		if _, err := leads.GetMany(ctx, ids); err != nil { // connections are there
			t.Fatal(err)
		}
		var sent pipelines
		rdb.AddHook(&sent)
		for _, c := range []struct {
			name string
			load ManyLoader[lead]
			ids  []string
			want int64
		}{
			{"all are there, no script is known", found, ids[:9], 5},
			{"all are there", found, ids[9:], 3},
			{"none exists, that script is not known", none, []string{"x", "y", "z"}, 4},
			{"none exists", none, []string{"x", "y", "z"}, 3},
			{"cached", none, ids, 1},
		} {
			if c.want == 5 {
				err := redisclient.EachMaster(ctx, rdb, func(ctx context.Context, node *redis.Client) error { return node.ScriptFlush(ctx).Err() })
				if err != nil {
					t.Fatal(err)
				}
			}
			sent.alone.Store(0)
			sent.together.Store(0)
			if _, err := leads.LoadMany(ctx, c.ids, c.load); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if alone, together := sent.alone.Load(), sent.together.Load(); alone != 0 || together != c.want {
				t.Errorf("%s: %d commands, %d pipelines, want %d", c.name, alone, together, c.want)
			}
		}
	})
}

// heaviest notes how many bytes the heaviest pipeline had.
type heaviest struct {
	pipelines
	bytes atomic.Int64
}

func (h *heaviest) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		var n int64
		for _, cmd := range cmds {
			for _, arg := range cmd.Args() {
				if b, ok := arg.([]byte); ok {
					n += int64(len(b))
				}
			}
		}
		for most := h.bytes.Load(); n > most && !h.bytes.CompareAndSwap(most, n); most = h.bytes.Load() {
		}
		return next(ctx, cmds)
	}
}

// Large values are not stored all in one go, which would take longer than a go may.
func TestBatchOfLargeValues(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	texts := Of[string](newStore(t, rdb, nil), "text")
	const size = 100_000
	noise := make([]byte, size/2)
	_, _ = rand.Read(noise)
	var ids []string
	for i := range 60 {
		ids = append(ids, fmt.Sprint(i))
	}
	var sent heaviest
	rdb.AddHook(&sent)
	_, err := texts.LoadMany(ctx, ids, func(_ context.Context, ids []string) (map[string]string, error) {
		found := map[string]string{}
		for _, id := range ids {
			found[id] = id + hex.EncodeToString(noise)
		}
		return found, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if most := sent.bytes.Load(); most == 0 || most > 1<<20+2*size {
		t.Errorf("%d bytes at once", most)
	}
	if found, err := texts.GetMany(ctx, ids); err != nil || len(found) != len(ids) {
		t.Errorf("%d of %d are stored, %v", len(found), len(ids), err)
	}
}

// claims tells of each pipeline that keeps claims, when it was answered.
type claims struct {
	pipelines
	kept chan int // how many keys
}

func (c *claims) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if args := cmds[0].Args(); len(args) > 1 && args[1] == claimScript.Hash() && !redis.HasErrorPrefix(cmds[0].Err(), "NOSCRIPT") {
			select {
			case c.kept <- len(cmds):
			default:
			}
		}
		return err
	}
}

// A batch that takes long keeps the claims to all its keys at once: one after the other, far from Redis, the last ones would end.
func TestLongBatchKeepsItsClaims(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	leads := Of[lead](newStore(t, rdb, nil), "lead")
	if err := claimScript.Load(ctx, rdb).Err(); err != nil {
		t.Fatal(err)
	}
	ids, err := numbers(400)(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ends := func(id string) int64 {
		raw, err := rdb.Get(ctx, leads.prefix+id).Bytes()
		h, _, parse := parseHeader(raw)
		if err := errors.Join(err, parse); err != nil {
			t.Error(err)
		}
		return h.claim
	}
	sent := claims{kept: make(chan int, 1)}
	rdb.AddHook(&sent)
	_, err = leads.LoadMany(ctx, ids, func(ctx context.Context, ids []string) (map[string]lead, error) {
		first, last := ends(ids[0]), ends(ids[len(ids)-1])
		select {
		case n := <-sent.kept:
			if n != 400 {
				t.Errorf("%d claims were kept together", n)
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if ends(ids[0]) <= first || ends(ids[len(ids)-1]) <= last {
			t.Error("the claims end when they did")
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An error that is none names no key.
func TestNoErrorOfAKeyIsNoValue(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](newStore(t, client(t, one.Get(t)), nil), "lead")
	found, err := leads.LoadMany(ctx, []string{"1", "2"}, func(context.Context, []string) (map[string]lead, error) {
		return nil, KeyErrors{"1": nil, "2": nil}
	})
	if len(found) != 0 {
		t.Errorf("got %v, %v", found, err)
	}
	if l, err := leads.Get(ctx, "1"); !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrMiss) {
		t.Errorf("then %+v, %v", l, err)
	}
}
