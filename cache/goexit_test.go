package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
)

// ending is a codec that ends its goroutine, as a test's t.Fatal does.
type ending struct {
	JSON
	encodes, decodes bool
}

func (e *ending) Encode(v any) ([]byte, error) {
	if e.encodes {
		runtime.Goexit()
	}
	return e.JSON.Encode(v)
}

func (e *ending) Decode(data []byte, v any) error {
	if e.decodes {
		runtime.Goexit()
	}
	return e.JSON.Decode(data, v)
}

// A loader, a codec or Tags that ends the goroutine of a load frees its waiters, and the key is not stuck. It counts as a panic.
func TestLoadWhoseGoroutineEndsFreesAll(t *testing.T) {
	for _, what := range []string{"loader", "codec", "tags"} {
		for _, many := range []bool{false, true} {
			t.Run(fmt.Sprint(what, ", many ", many), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newLocal(t, &Options{MaxLoads: 1})
					codec, loaderEnds, tagsEnd := &ending{encodes: what == "codec"}, what == "loader", what == "tags"
					v := Of[lead](s, "lead", InProcess(Local{}), WithCodec(codec), Tags(func(string, lead) []string {
						if tagsEnd {
							runtime.Goexit()
						}
						return nil
					}))
					load := func() (err error) {
						if !many {
							_, err = v.Load(t.Context(), "1", func(context.Context, string) (lead, error) {
								if loaderEnds {
									runtime.Goexit()
								}
								return lead{Score: 1}, nil
							})
							return err
						}
						_, err = v.LoadMany(t.Context(), []string{"1", "2"}, func(context.Context, []string) (map[string]lead, error) {
							if loaderEnds {
								runtime.Goexit()
							}
							return map[string]lead{"1": {}, "2": {}}, nil
						})
						return err
					}
					if err := load(); !errors.As(err, new(*PanicError)) {
						t.Errorf("the one that loads got %v", err)
					}
					synctest.Wait()
					keys := 1.
					if many {
						keys = 2
					}
					counted := func(outcome string) float64 { return testutil.ToFloat64(s.in.loads.WithLabelValues("lead", outcome)) }
					if n, late := counted("panic"), counted("timeout"); n != keys || late != 0 {
						t.Errorf("%v loads are counted as panics, want %v, and %v as timeouts", n, keys, late)
					}
					codec.encodes, loaderEnds, tagsEnd = false, false, false
					if err := load(); err != nil { // with the origin's only place, too
						t.Errorf("the next one got %v", err)
					}
				})
			})
		}
	}
}

// A warming goes on behind a loader that ends its goroutine.
func TestWarmingOutlivesGoroutinesThatEnd(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		s := newStore(t, rdb, nil)
		v := Of[lead](s, "lead")
		keys := []string{"1", "2", "3", "4"}
		if err := v.DeclareWarm(WarmSet[lead]{
			Name: "all", Concurrency: 1, Keys: func(context.Context) ([]string, error) { return keys, nil },
			Load: func(_ context.Context, id string) (lead, error) {
				if id == "2" {
					runtime.Goexit()
				}
				return lead{ID: id}, nil
			},
		}); err != nil {
			t.Fatal(err)
		}
		report, err := s.Warm(testContext(t))
		if mine := report.Sets[0]; err == nil || mine.Loaded != 3 || mine.Failed != 1 {
			t.Errorf("%+v, %v", mine, err)
		}
	})
}

// So does a codec that ends the goroutine which takes over what another process has loaded.
func TestWaiterWhoseGoroutineEndsFreesAll(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	there := sibling(t, s)
	g := newGate()
	loading := background(ctx, Of[lead](s, "lead"), "1", g.load)
	<-g.entered
	v := Of[lead](there, "lead", WithCodec(&ending{decodes: true}))
	waiting := background(ctx, v, "1", loads(lead{Score: 2}))
	eventually(t, "it waits", func() bool { return testutil.ToFloat64(there.in.waited.WithLabelValues("lead")) > 0 })
	g.release <- lead{Score: 1}
	if got := <-loading; got.err != nil {
		t.Fatal(got.err)
	}
	if got := <-waiting; !errors.As(got.err, new(*PanicError)) {
		t.Errorf("got %+v", got)
	}
	eventually(t, "it waits for no news any more", func() bool { return !waitsFor(there, v.prefix+"1") })
}

// A refresh whose goroutine ends is told of and counted like one that panics, and is not tried again at once.
func TestRefreshWhoseGoroutineEndsIsLeftAlone(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			var log bytes.Buffer
			s := newStore(t, client(t, one.Get(t)), func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			leads := Of[lead](s, "lead", StaleWhileRevalidate(time.Minute))
			l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
			wantScore(t, l, err, 1)
			staled(t, ctx, leads, "1", time.Second)
			var calls atomic.Int64
			for range 20 {
				l, err = leads.Load(ctx, "1", func(context.Context, string) (lead, error) { calls.Add(1); end(); return lead{}, nil })
				wantScore(t, l, err, 1)
				eventually(t, "the refresh ends", func() bool { _, runs := leads.refreshing.Load(leads.prefix + "1"); return !runs })
			}
			if n := calls.Load(); n != 1 {
				t.Errorf("%d loads in a moment", n)
			}
			loads, refreshes := testutil.ToFloat64(s.in.loads.WithLabelValues("lead", "panic")), testutil.ToFloat64(s.in.refreshes.WithLabelValues("lead", "error"))
			if loads != 1 || refreshes != 1 {
				t.Errorf("%v loads that panicked and %v failed refreshes are counted", loads, refreshes)
			}
			if !strings.Contains(log.String(), "cache: loader panicked") || !strings.Contains(log.String(), "TestRefreshWhoseGoroutineEndsIsLeftAlone") {
				t.Errorf("nothing says where it ended: %s", &log)
			}
		})
	}
}
