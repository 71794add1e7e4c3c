package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// Many callers in several processes miss at once: one loads, all get its value.
func TestOneLoadForAllProcesses(t *testing.T) {
	for _, run := range []bool{true, false} {
		t.Run(fmt.Sprint("running ", run), func(t *testing.T) {
			both(t, func(t *testing.T, rdb redis.UniversalClient) {
				ctx := testContext(t)
				first := newStore(t, rdb, nil)
				stores := []*Store{first, sibling(t, first), sibling(t, first), sibling(t, first)}
				var calls atomic.Int64
				release := make(chan struct{})
				load := func(_ context.Context, id string) (lead, error) {
					calls.Add(1)
					<-release
					return lead{ID: id, Score: 7}, nil
				}
				var wg sync.WaitGroup
				waiting := func() (n float64) {
					for _, s := range stores {
						n += testutil.ToFloat64(s.in.waited.WithLabelValues("lead"))
					}
					return n
				}
				for _, s := range stores {
					if run {
						running(t, s)
					}
					v := Of[lead](s, "lead")
					for range 50 {
						wg.Go(func() {
							l, err := v.Load(ctx, "1", load)
							if err != nil || l.Score != 7 {
								t.Errorf("%+v, %v", l, err)
							}
						})
					}
				}
				eventually(t, "three processes wait for the fourth", func() bool { return calls.Load() >= 1 && waiting() >= 3 })
				close(release)
				wg.Wait()
				if n := calls.Load(); n != 1 {
					t.Errorf("%d loads", n)
				}
			})
		})
	}
}

// A load that takes longer than a claim keeps it.
func TestLongLoadKeepsItsClaim(t *testing.T) {
	ctx := testContext(t)
	here := newStore(t, client(t, one.Get(t)), func(o *Options) { o.LoadTimeout = 30 * time.Second })
	a, b := Of[lead](here, "lead"), Of[lead](sibling(t, here), "lead")
	g, h := newGate(), newGate()
	slow := background(ctx, a, "1", g.load)
	<-g.entered
	waiter := background(ctx, b, "1", h.load)
	select {
	case <-h.entered:
		t.Error("a second load began beside the first")
	case <-time.After(claimTTL + time.Second): // nothing else tells that nothing happens
	}
	g.release <- lead{Score: 1}
	for _, done := range []<-chan outcome{slow, waiter} {
		got := <-done
		wantScore(t, got.lead, got.err, 1)
	}
}

// loseClaims makes answers to what keeps claims be lost.
type loseClaims struct {
	pipelines
	lose atomic.Int64 // how many
}

func (l *loseClaims) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			if args := cmd.Args(); len(args) > 1 && args[1] == claimScript.Hash() && cmd.Err() == nil && l.lose.Add(-1) >= 0 {
				cmd.(*redis.Cmd).SetVal(nil)
				cmd.SetErr(context.DeadlineExceeded)
			}
		}
		return err
	}
}

// A claim is kept, and let go of, also when Redis has kept it and the answer was lost.
func TestClaimAfterALostAnswer(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		there := newStore(t, rdb, nil)
		lossy := client(t, one.Get(t))
		if _, clustered := rdb.(*redis.ClusterClient); clustered {
			lossy = client(t, six.Get(t))
		}
		lost := &loseClaims{}
		lossy.AddHook(lost)
		here := newStore(t, lossy, func(o *Options) { *o = there.opts })
		key := here.opts.Prefix + "lead:1"
		if err := claimScript.Run(ctx, rdb, []string{key}, claimArgs(&fill{}, 0)...).Err(); err != nil { // Redis knows it now
			t.Fatal(err)
		}
		claim := func(s *Store) *fill {
			t.Helper()
			fl := &fill{key: key, id: "1"}
			if how, _, _, err := s.begin(ctx, fl); err != nil || how != granted {
				t.Fatal(how, err)
			}
			return fl
		}
		ends := func() int64 { t.Helper(); return headerAt(t, ctx, rdb, key).claim }
		var mu sync.Mutex
		keep := func(fl *fill) {
			t.Helper()
			<-time.After(2 * time.Millisecond) // the server's clock goes on
			if !here.keepOnce(ctx, &mu, []*fill{fl}) {
				t.Fatal(ctx.Err())
			}
		}
		fl := claim(here)
		first := fl.claim
		lost.lose.Store(3)
		for range 3 {
			keep(fl)
		}
		if fl.claim != first || ends() <= first {
			t.Fatalf("the claim was until %d, its owner knows of %d, in Redis it is until %d", first, fl.claim, ends())
		}
		keep(fl)
		if fl.claim <= first || ends() != fl.claim {
			t.Errorf("the claim was until %d, its owner knows of %d, in Redis it is until %d", first, fl.claim, ends())
		}
		lost.lose.Store(1)
		keep(fl)
		here.release(ctx, fl)
		if end := ends(); end != 0 {
			t.Errorf("given up, and until %d", end)
		}

		// What somebody else has claimed after its end is not its own, with an answer lost or without.
		fl = claim(here)
		lost.lose.Store(1)
		keep(fl)
		past := make([]byte, 8)
		if err := rdb.SetRange(ctx, key, 48, string(past)).Err(); err != nil {
			t.Fatal(err)
		}
		other := claim(there)
		fl.claim = other.claim - claimTTL.Milliseconds() // the latest that it can have been, to the millisecond
		keep(fl)
		here.release(ctx, fl)
		if end := ends(); end != other.claim {
			t.Errorf("the other's claim was until %d, now it is until %d", other.claim, end)
		}
	})
}

// headerAt is what stands in Redis.
func headerAt(t *testing.T, ctx context.Context, rdb redis.UniversalClient, key string) header {
	t.Helper()
	raw, err := rdb.Get(ctx, key).Bytes()
	h, _, parse := parseHeader(raw)
	if err := errors.Join(err, parse); err != nil {
		t.Fatal(err)
	}
	return h
}

// A claim that has been given up, or has ended with a value, is not given up again: by then it may be another's, and look like one
// that was kept, and the answer lost.
func TestClaimIsGivenUpOnce(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, end := range map[string]func(ctx context.Context, v *View[lead], fl *fill){
			"released":          func(ctx context.Context, v *View[lead], fl *fill) { v.store.release(ctx, fl) },
			"released together": func(ctx context.Context, v *View[lead], fl *fill) { v.store.releaseMany(ctx, []*fill{fl}) },
			"stored": func(ctx context.Context, v *View[lead], fl *fill) {
				a := answer{header: header{kind: kindValue}, payload: []byte("{}"), store: true}
				if l := v.land(ctx, fl, &a); !l.settled() {
					t.Errorf("%+v", l)
				}
			},
		} {
			t.Run(name, func(t *testing.T) {
				ctx := testContext(t)
				v := Of[lead](newStore(t, rdb, nil), "lead")
				s, key := v.store, v.prefix+"1"
				fl := &fill{key: key, id: "1"}
				if how, _, _, err := s.begin(ctx, fl); err != nil || how != granted {
					t.Fatal(how, err)
				}
				fl.doubt = true
				end(ctx, v, fl)
				other := &fill{key: key, id: "1", seen: entry{header: headerAt(t, ctx, rdb, key)}}
				if other.seen.header.kind == kindValue {
					other.seen.verdict = hit
				}
				if how, _, _, err := s.begin(ctx, other); err != nil || how != granted {
					t.Fatal(how, err)
				}
				s.release(ctx, fl)
				s.releaseMany(ctx, []*fill{fl})
				if h := headerAt(t, ctx, rdb, key); h.claim != other.claim {
					t.Errorf("the other's claim was until %d, now it is until %d", other.claim, h.claim)
				}
			})
		}
	})
}

// When the process that loads is gone, another takes over when the claim ends.
func TestClaimOfTheDeadEnds(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := newStore(t, rdb, nil)
		fl := &fill{key: here.opts.Prefix + "lead:1", id: "1"}
		began := time.Now()
		if how, _, _, err := here.begin(ctx, fl); err != nil || how != granted {
			t.Fatal(how, err)
		}
		// Its process dies.
		l, err := Of[lead](sibling(t, here), "lead").Load(ctx, "1", loads(lead{Score: 2}))
		wantScore(t, l, err, 2)
		if took := time.Since(began); took < claimTTL-10*time.Millisecond { // Redis counts whole milliseconds
			t.Errorf("it took %v, the claim is for %v", took, claimTTL)
		}
	})
}

// A load that fails frees the others at once.
func TestFailedLoadGivesItsClaimUp(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := newStore(t, rdb, nil)
		away := errors.New("away")
		for name, load := range map[string]Loader[lead]{
			"error":     func(context.Context, string) (lead, error) { return lead{}, away },
			"panic":     func(context.Context, string) (lead, error) { panic("boom") },
			"not found": func(context.Context, string) (lead, error) { return lead{}, ErrNotFound },
		} {
			if _, err := Of[lead](here, "lead").Load(ctx, name, load); err == nil {
				t.Fatal("no error")
			}
			began := time.Now()
			l, err := Of[lead](sibling(t, here), "lead").Load(ctx, name, loads(lead{Score: 2}))
			wantScore(t, l, err, 2)
			if took := time.Since(began); took > claimTTL/2 {
				t.Errorf("%s: the next load waited %v", name, took)
			}
		}
	})
}

// Who wrote does not wait for a load that may not see it.
func TestCallerThatWroteDoesNotWaitForALesserLoad(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := newStore(t, rdb, nil)
		a, b := Of[lead](here, "lead"), Of[lead](sibling(t, here), "lead")
		g := newGate()
		slow := background(ctx, a, "1", g.load)
		<-g.entered
		l, err := b.Load(wrote(ctx, at(9)), "1", obedient(lead{Score: 2}))
		wantScore(t, l, err, 2)
		g.release <- lead{Score: 1}
		<-slow
		l, err = b.Get(wrote(ctx, at(9)), "1")
		wantScore(t, l, err, 2)
	})
}

// Who wrote waits for a load that sees at least as much.
func TestCallerThatWroteWaitsForAGreaterLoad(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := newStore(t, rdb, nil)
		a, b := Of[lead](here, "lead"), Of[lead](sibling(t, here), "lead")
		g, h := newGate(), newGate()
		g.saw = append(g.saw, at(9))
		slow := background(wrote(ctx, at(9)), a, "1", g.load)
		<-g.entered
		waiter := background(wrote(ctx, at(8)), b, "1", h.load)
		eventually(t, "it waits", func() bool { return testutil.ToFloat64(b.store.in.waited.WithLabelValues("lead")) == 1 })
		g.release <- lead{Score: 1}
		<-slow
		got := <-waiter
		wantScore(t, got.lead, got.err, 1)
		if h.calls.Load() != 0 {
			t.Error("it loaded")
		}
	})
}

// A load does not wait at its end for a server that hangs while the claim is kept up.
func TestClaimIsLetGoOfAtOnce(t *testing.T) {
	ctx := testContext(t)
	cluster, err := rediscluster.Start(ctx, &rediscluster.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	s := newStore(t, client(t, cluster), nil) // which is patient with Redis
	fl := &fill{key: s.opts.Prefix + "lead:1", id: "1"}
	if how, _, _, err := s.begin(ctx, fl); err != nil || how != granted {
		t.Fatal(how, err)
	}
	stop := s.keepClaims(ctx, fl)
	cluster.Nodes()[0].Freeze()
	defer cluster.Nodes()[0].Thaw()
	<-time.After(claimTTL/3 + 300*time.Millisecond) // then it is being kept up
	began := time.Now()
	stop()
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}

// A lease stands for as long as its load goes on, made again or not.
func TestLeaseLastsAsLongAsItsLoad(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	v := Of[lead](s, "lead")
	g := newGate()
	slow := background(ctx, v, "1", g.load)
	<-g.entered
	if ok, err := s.rdb.PExpire(ctx, v.prefix+"1", 5*time.Second).Result(); err != nil || !ok {
		t.Fatal(ok, err)
	}
	eventually(t, "the lease lasts for longer", func() bool { return s.rdb.PTTL(ctx, v.prefix+"1").Val() > 5*time.Second })
	g.release <- lead{Score: 1}
	<-slow
	l, err := v.Get(ctx, "1")
	wantScore(t, l, err, 1)
}

// Who waits for another process's load hears how old its answer is, and what it has seen, also when there is nothing.
func TestAnswerOfAnotherProcessHasAnAge(t *testing.T) {
	ctx := testContext(t)
	here := newStore(t, client(t, one.Get(t)), nil)
	there := sibling(t, here)
	a, b := Of[lead](here, "lead", NegativeTTL(time.Minute)), Of[lead](there, "lead", NegativeTTL(time.Minute))
	for waited, want := range []error{nil, ErrNotFound} {
		id := fmt.Sprint(waited)
		entered, release := make(chan bool), make(chan bool)
		first := background(ctx, a, id, func(ctx context.Context, _ string) (lead, error) {
			entered <- true
			<-release
			w := scaleaware.WatermarkFrom(ctx)
			w.Saw(at(5))
			w.Raise(at(5)) // as monotonic reads do
			return lead{Score: 1}, want
		})
		<-entered
		wctx, w := scaleaware.WithWatermark(ctx)
		second := background(wctx, b, id, func(context.Context, string) (lead, error) { return lead{}, errors.New("loaded here") })
		eventually(t, "it waits", func() bool {
			return testutil.ToFloat64(there.in.waited.WithLabelValues("lead")) == float64(waited+1)
		})
		release <- true
		<-first
		if got := <-second; !errors.Is(got.err, want) {
			t.Fatal(got)
		}
		seen, err := w.Written(ctx)
		if asOf := w.AsOf(); err != nil || len(asOf) != 1 || asOf[0] != at(5) || len(seen) != 1 || seen[0] != at(5) {
			t.Errorf("%v: the answer is as of %v, has seen %v, %v", want, asOf, seen, err)
		}
	}
}

// Those who wait for another process's load get a value each, also one that is stored compressed.
func TestWaitersForAnotherProcessShareNoMemory(t *testing.T) {
	for name, size := range map[string]int{"plain": 10, "compressed": 4 * compressOver} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			here := newStore(t, client(t, one.Get(t)), nil)
			there := sibling(t, here)
			a, b := Of[map[string]string](here, "texts"), Of[map[string]string](there, "texts")
			entered, release := make(chan bool), make(chan bool)
			first := make(chan error, 1)
			go func() {
				_, err := a.Load(ctx, "1", func(context.Context, string) (map[string]string, error) {
					entered <- true
					<-release
					return map[string]string{"a": strings.Repeat("x", size)}, nil
				})
				first <- err
			}()
			<-entered
			results := make(chan map[string]string, 2)
			for range 2 {
				go func() {
					m, err := b.Load(ctx, "1", func(context.Context, string) (map[string]string, error) {
						return nil, errors.New("loaded here")
					})
					if err != nil {
						t.Error(err)
					}
					results <- m
				}()
			}
			eventually(t, "both wait", func() bool {
				return b.window.sum(time.Now())[resultMiss] == 2 && testutil.ToFloat64(there.in.waited.WithLabelValues("texts")) == 1
			})
			close(release)
			if err := <-first; err != nil {
				t.Fatal(err)
			}
			x, y := <-results, <-results
			if len(x["a"]) != size || len(y["a"]) != size {
				t.Fatalf("%d and %d bytes", len(x["a"]), len(y["a"]))
			}
			x["mine"] = "x"
			if _, shared := y["mine"]; shared {
				t.Error("two callers have the same map")
			}
		})
	}
}
