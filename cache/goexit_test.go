package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus/testutil"
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

// A codec or Tags that ends the goroutine of a load frees its waiters, and the key is not stuck.
func TestLoadWhoseGoroutineEndsFreesAll(t *testing.T) {
	for _, what := range []string{"codec", "tags"} {
		for _, many := range []bool{false, true} {
			t.Run(fmt.Sprint(what, ", many ", many), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newLocal(t, &Options{MaxLoads: 1})
					codec, tagsEnd := &ending{encodes: what == "codec"}, what == "tags"
					v := Of[lead](s, "lead", InProcess(Local{}), WithCodec(codec), Tags(func(string, lead) []string {
						if tagsEnd {
							runtime.Goexit()
						}
						return nil
					}))
					load := func() (err error) {
						if !many {
							_, err = v.Load(t.Context(), "1", loads(lead{Score: 1}))
							return err
						}
						_, err = v.LoadMany(t.Context(), []string{"1", "2"}, func(context.Context, []string) (map[string]lead, error) {
							return map[string]lead{"1": {}, "2": {}}, nil
						})
						return err
					}
					if err := load(); !errors.As(err, new(*PanicError)) {
						t.Errorf("the one that loads got %v", err)
					}
					codec.encodes, tagsEnd = false, false
					if err := load(); err != nil { // with the origin's only place, too
						t.Errorf("the next one got %v", err)
					}
				})
			})
		}
	}
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
	eventually(t, "it waits for no news any more", func() bool {
		there.waits.mu.Lock()
		defer there.waits.mu.Unlock()
		return len(there.waits.byKey) == 0
	})
}
