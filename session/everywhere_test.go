package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2/memstore"
	"github.com/redis/go-redis/v9"
)

// running runs the manager for the time of the test, and returns when it hears itself.
func running(t testing.TB, a *app) *app {
	t.Helper()
	start(t, a.Manager)
	eventually(t, "the news to come in", func() bool { return a.principals.cache.heard.Load() != 0 })
	return a
}

func start(t testing.TB, m *Manager) {
	var done sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	done.Go(func() {
		if err := m.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
}

func everywhere(a *app) *app {
	a.on("everywhere", func(_ http.ResponseWriter, r *http.Request) string {
		n, err := a.LogoutEverywhere(r.Context(), r.URL.Query().Get("who"))
		return fmt.Sprint(n, err)
	})
	return a
}

func TestLogoutEverywhere(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, opts := range map[string]Options{"cached": {}, "strict": {Strict: true}, "encrypted": {Secrets: []string{secretA}}} {
			t.Run(name, func(t *testing.T) {
				one, two := everywhere(serve(t, manager(t, rdb, opts))), serve(t, manager(t, rdb, opts))
				if !opts.Strict {
					running(t, one)
					running(t, two)
				}
				laptop, phone, bob, admin := newBrowser(t), newBrowser(t), newBrowser(t), newBrowser(t)
				laptop.want(one, "login?as=ada", "welcome")
				phone.want(two, "login?as=ada", "welcome")
				bob.want(two, "login?as=bob", "welcome")
				old := phone.cookie(two)
				for _, a := range []*app{one, two} { // both have asked for her generation
					laptop.want(a, "who", "ada")
					phone.want(a, "who", "ada")
				}
				admin.want(one, "everywhere?who=ada", "2 <nil>")
				laptop.want(one, "who", "") // where it was done, at once
				check := eventually
				if opts.Strict {
					check = func(t testing.TB, what string, ok func() bool) {
						if !ok() {
							t.Errorf("not at once: %s", what)
						}
					}
				}
				check(t, "the other instance to hear of it", func() bool { return phone.call(two, "who") == "" })
				phone.with(two, old).want(two, "who", "")
				bob.want(one, "who", "bob")
				eventually(t, "the next log-in", func() bool { return phone.call(two, "login?as=ada") == "welcome" })
				phone.want(one, "who", "ada")
				laptop.want(two, "who", "")
			})
		}
	})
}

// Sessions that no list has, and instances that heard nothing, and a Redis that kept the sessions' data.
func TestLogoutEverywhereNeedsNoListNorNews(t *testing.T) {
	rdb := client(t, single)
	one, two := serve(t, manager(t, rdb, Options{})), serve(t, manager(t, rdb, Options{}))
	b := newBrowser(t)
	b.want(one, "login?as=ada", "welcome")
	b.want(two, "who", "ada")
	rdb.Del(t.Context(), two.principals.keys("ada")[1]) // evicted
	if n, err := one.LogoutEverywhere(t.Context(), "ada"); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	two.principals.cache.clock = func() time.Time { return time.Now().Add(fresh + time.Millisecond) }
	b.want(two, "who", "") // the instance that heard nothing asks
	if two.counted("load", "revoked") != 1 {
		t.Error("not counted")
	}
}

// refused is a Redis that does not do what a script asks, the first few times.
type refused struct {
	redis.Hook
	hash string
	left atomic.Int64
}

func (h *refused) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *refused) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *refused) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); len(args) > 1 && args[1] == h.hash && h.left.Add(-1) >= 0 {
			cmd.SetErr(errors.New("the server is busy"))
			return cmd.Err()
		}
		return next(ctx, cmd)
	}
}

// Sessions whose data cannot be deleted are ended, too: none is listed or counted any more, and the data end by themselves.
func TestLogoutEverywhereThatCannotDelete(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := everywhere(serve(t, manager(t, rdb, Options{Strict: true})))
		ada, too := newBrowser(t), newBrowser(t)
		h := &refused{hash: deleteScript.Hash()}
		rdb.AddHook(h)
		for _, refusals := range []int64{1, 2} {
			for _, b := range []*browser{ada, too} {
				eventually(t, "a log-in", func() bool { return b.call(a, "login?as=ada") == "welcome" }) // one is refused in the moment of a log-out
			}
			keys := []string{a.keyOf(ada.cookie(a)), a.keyOf(too.cookie(a))}
			h.left.Store(refusals)
			ada.want(a, "everywhere?who=ada", "2 <nil>")
			if left := h.left.Load(); left > 0 {
				t.Errorf("%d deletions were not asked for", left)
			}
			if all, err := a.Devices(t.Context(), "ada"); err != nil || len(all) > 0 {
				t.Errorf("nobody is logged in, and listed are %+v, %v", all, err)
			}
			var left int64
			for _, key := range keys {
				switch ttl := rdb.PTTL(t.Context(), key).Val(); {
				case ttl > 0:
					left++
				case ttl == -1:
					t.Errorf("%s never ends", key)
				}
			}
			if left != refusals {
				t.Errorf("of %d deletions %d were refused, and the data of %d sessions are left", len(keys), refusals, left)
			}
			ada.want(a, "who", "")
			too.want(a, "who", "")
			if n, err := a.LogoutEverywhere(t.Context(), "ada"); n != 0 || err != nil {
				t.Errorf("of nobody %d were logged out, %v", n, err)
			}
		}
	})
}

// An evicted generation must end sessions, not revive those that were ended.
func TestEvictedGenerationRevivesNobody(t *testing.T) {
	rdb := client(t, single)
	a := serve(t, manager(t, rdb, Options{Strict: true}))
	b, thief := newBrowser(t), newBrowser(t)
	thief.want(a, "login?as=ada", "welcome")
	data, key := rdb.Dump(t.Context(), a.keyOf(thief.cookie(a))).Val(), a.keyOf(thief.cookie(a))
	if _, err := a.LogoutEverywhere(t.Context(), "ada"); err != nil {
		t.Fatal(err)
	}
	rdb.Restore(t.Context(), key, time.Hour, data) // somehow it is still there
	thief.want(a, "who", "")
	rdb.Restore(t.Context(), key, time.Hour, data)
	rdb.Del(t.Context(), a.principals.keys("ada")...)
	thief.want(a, "who", "")
	eventually(t, "the next log-in", func() bool { return b.call(a, "login?as=ada") == "welcome" })
	rdb.Restore(t.Context(), key, time.Hour, data)
	thief.want(a, "who", "")
	b.want(a, "who", "ada")
}

// The log-in's request has begun, and its password was checked, before everybody was logged out.
func TestLoginThatRacesLogoutEverywhere(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, early := range map[string]bool{"before Login": true, "after Login": false} {
			t.Run(name, func(t *testing.T) {
				a, other := serve(t, manager(t, rdb, Options{})), serve(t, manager(t, rdb, Options{}))
				g := newGate()
				a.on("slowlogin", func(_ http.ResponseWriter, r *http.Request) string {
					if early {
						g.pass()
					}
					if err := a.Login(r.Context(), "ada"); err != nil {
						t.Error(err)
					}
					if !early {
						g.pass()
					}
					return "welcome"
				})
				b, second := newBrowser(t), newBrowser(t)
				var inFlight sync.WaitGroup
				inFlight.Go(func() {
					resp, body := b.response(a, "slowlogin")
					if resp.StatusCode != http.StatusServiceUnavailable || body == "welcome" || len(resp.Cookies()) != 0 {
						t.Errorf("answer %d %q, %v", resp.StatusCode, body, resp.Cookies())
					}
				})
				<-g.entered
				if _, err := other.LogoutEverywhere(t.Context(), "ada"); err != nil {
					t.Error(err)
				}
				close(g.release)
				inFlight.Wait()
				b.want(a, "who", "")
				if a.counted("login", "revoked") != 1 {
					t.Error("not counted")
				}
				// One that began afterwards: in the very next milliseconds it may be told to try again.
				eventually(t, "the next log-in", func() bool { return second.call(a, "login?as=ada") == "welcome" })
				second.want(a, "who", "ada")
			})
		}
	})
}

// The change of a password: everybody is logged out, but the one who changed it.
func TestLogoutEverywhereButHere(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := serve(t, manager(t, rdb, Options{}))
		a.on("password", func(_ http.ResponseWriter, r *http.Request) string {
			_, err := a.LogoutEverywhere(r.Context(), "ada")
			return fmt.Sprint(err, a.Login(r.Context(), "ada"))
		})
		here, there := newBrowser(t), newBrowser(t)
		here.want(a, "login?as=ada", "welcome")
		there.want(a, "login?as=ada", "welcome")
		here.want(a, "password", "<nil> <nil>")
		here.want(a, "who", "ada")
		there.want(a, "who", "")
	})
}

// A request that has loaded its session before, and then writes, renews the token, or extends its life.
func TestRefreshThatRacesLogoutEverywhere(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, do := range map[string]func(a *app, r *http.Request){
			"read":   func(a *app, r *http.Request) {},
			"write":  func(a *app, r *http.Request) { a.SCS().Put(r.Context(), "k", "v") },
			"renew":  func(a *app, r *http.Request) { _ = a.SCS().RenewToken(r.Context()) },
			"extend": func(a *app, r *http.Request) { a.SCS().SetDeadline(r.Context(), time.Now().Add(48*time.Hour)) },
		} {
			t.Run(name, func(t *testing.T) {
				a, other := serve(t, manager(t, rdb, Options{IdleTimeout: time.Hour})), serve(t, manager(t, rdb, Options{Strict: true}))
				g := newGate()
				var token string
				a.on("slow", func(_ http.ResponseWriter, r *http.Request) string {
					_ = a.Load(r.Context())
					g.pass()
					do(a, r)
					token = a.SCS().Token(r.Context())
					return "done"
				})
				b := newBrowser(t)
				b.want(a, "login?as=ada", "welcome")
				old := b.cookie(a)
				var inFlight sync.WaitGroup
				inFlight.Go(func() { b.want(a, "slow", "done") })
				<-g.entered
				if _, err := other.LogoutEverywhere(t.Context(), "ada"); err != nil {
					t.Error(err)
				}
				close(g.release)
				inFlight.Wait()
				for _, cookie := range []string{old, token, b.cookie(a)} {
					b.with(other, cookie).want(other, "who", "")
				}
			})
		}
	})
}

// Log-ins, refreshes and renewals from many sides while everybody is logged out again and again: after the last time nobody
// whose request began before is in.
func TestNobodySurvivesLogoutEverywhereUnderLoad(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		strict := Options{StoreTimeout: 5 * time.Second, Strict: true}
		instances := []*app{
			running(t, serve(t, manager(t, rdb, Options{StoreTimeout: 5 * time.Second}))), serve(t, manager(t, rdb, strict)),
		}
		for _, a := range instances {
			a.on("renew", func(_ http.ResponseWriter, r *http.Request) string {
				return fmt.Sprint(a.SCS().RenewToken(r.Context()))
			})
		}
		judge := instances[1]
		for range 5 {
			var mu sync.Mutex
			var cookies []string
			var users sync.WaitGroup
			begun := make(chan struct{}, 8)
			for i := range 8 {
				users.Go(func() {
					b := newBrowser(t)
					for j := range 6 {
						a := instances[(i+j)%2]
						b.call(a, []string{"login?as=ada", "who", "put?key=k&value=v", "renew", "login?as=ada", "who"}[j])
						mu.Lock()
						cookies = append(cookies, b.cookie(a))
						mu.Unlock()
						if j == 1 {
							begun <- struct{}{}
						}
					}
				})
			}
			for range 8 {
				<-begun
			}
			if _, err := judge.LogoutEverywhere(t.Context(), "ada"); err != nil { // in the middle of it
				t.Error(err)
			}
			users.Wait()
			if _, err := judge.LogoutEverywhere(t.Context(), "ada"); err != nil {
				t.Error(err)
			}
			for _, cookie := range cookies {
				if got := newBrowser(t).with(judge, cookie).call(judge, "who"); cookie != "" && got != "" {
					t.Fatalf("%q is still logged in", got)
				}
			}
		}
	})
}

func TestCounts(t *testing.T) {
	for _, c := range []struct {
		current, generation string
		want                bool
	}{
		{"", "", true}, {"A", "", true}, {"A!5", "", false},
		{"", "A", false}, {"A", "A", true}, {"B", "A", false}, {"A!5", "A!5", true}, {"A!6", "A!5", false}, {"A!5", "A", false},
	} {
		if got := counts(c.current, c.generation); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestGenerationsAreRememberedForAMoment(t *testing.T) {
	now := time.Now()
	g := &generations{clock: func() time.Time { return now }}
	known := func() bool { _, ok := g.get("id"); return ok }
	wait := func(d time.Duration) { now = now.Add(d) }

	g.put("id", "A", g.now())
	if wait(fresh); !known() {
		t.Error("forgotten within a second")
	}
	if wait(time.Nanosecond); known() {
		t.Error("remembered after a second without news")
	}
	g.put("id", "A", g.now())
	for range 9 {
		wait(time.Second)
		g.heard.Store(now.UnixNano())
		g.checked.Store(now.UnixNano())
		if !known() {
			t.Error("forgotten although the news come in")
		}
	}
	if wait(time.Second + 1); known() {
		t.Error("remembered after ten seconds")
	}
	for name, other := range map[string]*atomic.Int64{"news": &g.heard, "list": &g.checked} {
		g.put("id", "A", g.now())
		wait(2 * time.Second)
		other.Store(now.UnixNano())
		if known() {
			t.Errorf("remembered although only the %s comes in", name)
		}
	}
	asked := g.now()
	g.forget("id")
	if g.put("id", "A", asked); known() {
		t.Error("an answer from before the news was kept")
	}
	asked = g.now()
	g.lapse()
	if g.put("id", "A", asked); known() {
		t.Error("an answer from before the connection was lost was kept")
	}
	for i := range 3 * maxGenerations {
		g.put(fmt.Sprint(i), "A", g.now())
	}
	if n := len(g.young) + len(g.old); n > 2*maxGenerations {
		t.Errorf("%d are remembered", n)
	}
}

func TestOtherStoresDoNotKnowWhoIsLoggedInWhere(t *testing.T) {
	a := serve(t, withStore(t, memstore.NewWithCleanupInterval(0), Options{}))
	start(t, a.Manager)
	_, err := a.LogoutEverywhere(t.Context(), "ada")
	_, err2 := a.Devices(t.Context(), "ada")
	if err3 := a.LogoutDevice(t.Context(), "ada", "x"); err == nil || err2 == nil || err3 == nil {
		t.Errorf("%v, %v, %v", err, err2, err3)
	}
}

func TestErrorsOfDevices(t *testing.T) {
	a := serve(t, manager(t, client(t, single), Options{}))
	if _, err := a.LogoutEverywhere(t.Context(), ""); err == nil {
		t.Error("nobody was logged out")
	}
	if err := a.LogoutDevice(t.Context(), "ada", "x"); !errors.Is(err, ErrNoDevice) {
		t.Errorf("%v, want ErrNoDevice", err)
	}
}
