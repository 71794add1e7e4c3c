package session

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// gate holds a request between the loading of its session and the end of its handler.
type gate struct{ entered, release chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}), make(chan struct{})} }

func (g *gate) pass() {
	g.entered <- struct{}{}
	<-g.release
}

// What a request in flight must not undo, done by another request of the same session. The last is a log-out on an
// instance that still runs scs/redisstore, which leaves no tombstone.
var endings = map[string]string{"logout": "logout", "renewal": "login?as=ada", "foreign logout": "del"}

func TestRequestInFlightDoesNotReviveTheSession(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		for ending, verb := range endings {
			for name, opts := range map[string]Options{"writer": {}, "writer with idle timeout": {IdleTimeout: time.Hour}, "reader with idle timeout": {IdleTimeout: time.Hour}} {
				t.Run(ending+" against "+name, func(t *testing.T) {
					notRevived(t, rdb, serve(t, manager(t, rdb, opts)), verb, name != "reader with idle timeout")
				})
			}
		}
	})
}

func notRevived(t *testing.T, rdb redis.UniversalClient, a *app, ending string, writes bool) {
	g := newGate()
	a.on("slow", func(_ http.ResponseWriter, r *http.Request) string {
		_ = a.Load(r.Context())
		g.pass()
		if writes {
			a.SCS().Put(r.Context(), "k", "v")
		}
		return "done"
	})
	a.on("del", func(_ http.ResponseWriter, r *http.Request) string {
		return rdb.Del(r.Context(), a.keyOf(a.SCS().Token(r.Context()))).String()
	})
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	old := b.cookie(a)
	thief := b.with(a, old)
	var inFlight sync.WaitGroup
	inFlight.Go(func() { thief.want(a, "slow", "done") })
	<-g.entered
	b.call(a, ending)
	close(g.release)
	inFlight.Wait()

	if n := rdb.Exists(t.Context(), a.keyOf(old)).Val(); n != 0 {
		t.Error("the request in flight wrote the session back")
	}
	b.with(a, old).want(a, "who", "")
	thief.want(a, "who", "")
	if strings.HasPrefix(ending, "login") {
		b.want(a, "who", "ada")
	}
	if writes && a.counted("commit", "revoked") == 0 {
		t.Error("a dropped commit was not counted")
	}
}

// together runs n calls whose handlers have all loaded the session before the first of them stores it.
func together(t *testing.T, a *app, b *browser, n int, do func(r *http.Request, i int)) {
	var loaded sync.WaitGroup
	loaded.Add(n)
	verb := fmt.Sprintf("together%p", &loaded)
	var i int
	var mu sync.Mutex
	a.on(verb, func(_ http.ResponseWriter, r *http.Request) string {
		mu.Lock()
		mine := i
		i++
		mu.Unlock()
		_ = a.Load(r.Context())
		loaded.Done()
		loaded.Wait()
		do(r, mine)
		return "done"
	})
	var calls sync.WaitGroup
	for range n {
		calls.Go(func() { b.want(a, verb, "done") })
	}
	calls.Wait()
}

func TestParallelWritesOfDifferentKeysAllSurvive(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := serve(t, manager(t, rdb, Options{StoreTimeout: 5 * time.Second}))
		b := newBrowser(t)
		b.call(a, "login?as=ada")
		b.call(a, "put?key=doomed&value=x")
		const n = 20
		together(t, a, b, n, func(r *http.Request, i int) {
			if i == 0 {
				a.SCS().Remove(r.Context(), "doomed")
			}
			a.SCS().Put(r.Context(), fmt.Sprint("key", i), "v")
		})
		for i := range n {
			b.want(a, fmt.Sprint("get?key=key", i), "v")
		}
		b.want(a, "get?key=doomed", "")
		b.want(a, "who", "ada")
		if a.counted("commit", "conflict") == 0 {
			t.Error("no conflict: the requests did not meet")
		}
	})
}

// The request that wrote first stores last: last-wins would take the later position away.
func TestTokenNeverGoesBack(t *testing.T) {
	a := serve(t, manager(t, client(t, cluster), Options{StoreTimeout: 5 * time.Second}))
	b := newBrowser(t)
	b.call(a, "login?as=ada")
	high := make(chan struct{})
	together(t, a, b, 2, func(r *http.Request, i int) {
		mark := scaleaware.WatermarkFrom(r.Context())
		if i == 0 {
			defer close(high)
			mark.Raise(scaleaware.Token{System: 1, Timeline: 1, LSN: 9})
			return
		}
		mark.Raise(scaleaware.Token{System: 1, Timeline: 1, LSN: 7})
		<-high
		eventually(t, "the other request to be stored", func() bool {
			return a.counted("commit", "ok") == 2 // the login and the other
		})
	})
	b.want(a, "reads", "1:1:0/9")
	if a.counted("commit", "conflict") != 1 {
		t.Error("the two requests did not meet")
	}
}
