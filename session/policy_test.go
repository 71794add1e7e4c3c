package session

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
)

// Each route decides for itself what it does while the store does not answer.
func TestPolicyPerRoute(t *testing.T) {
	node := single.Get(t).Nodes()[0]
	a := serve(t, manager(t, client(t, single), Options{StoreTimeout: patience}))
	begun := make(chan struct{}, 10)
	who := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		_, _ = w.Write([]byte("user " + Principal(r.Context())))
	})
	for name, policy := range map[string]StoreDown{"refuse": Refuse, "anonymous": Anonymous, "degrade": Degrade} {
		a.verbs.Handle("/"+name, a.OnStoreDown(policy, who))
	}
	a.on("usual", func(_ http.ResponseWriter, r *http.Request) string { return "user " + Principal(r.Context()) })
	a.on("unused", func(http.ResponseWriter, *http.Request) string { return "served" })
	a.on("degradedput", func(_ http.ResponseWriter, r *http.Request) string { return From(r.Context()).Put("k", "v").Error() })
	user, unseen := newBrowser(t), newBrowser(t)
	user.want(a, "login?as=ada", "welcome")
	unseen.want(a, "login?as=eve", "welcome")
	user.want(a, "degrade", "user ada")
	<-begun

	thaw := sync.OnceFunc(node.Thaw)
	defer thaw()
	node.Freeze()
	a.bound(storeTimeout)
	for verb, want := range map[string]string{"usual": "503", "refuse": "503", "anonymous": "user ", "degrade": "user ada", "unused": "served"} {
		timed(t, func() {
			resp, body := user.response(a, verb)
			if resp.StatusCode == http.StatusServiceUnavailable {
				body = "503"
			}
			if body != want {
				t.Errorf("%s: %q, want %q", verb, body, want)
			}
		})
	}
	if n := len(begun); n != 2 {
		t.Errorf("%d handlers have begun, want two: not the one that is refused", n)
	}
	timed(t, func() { unseen.want(a, "degrade", "user ") }) // nothing of it was read lately
	timed(t, func() {
		if _, body := user.response(a, "degradedput"); !strings.Contains(body, "503") {
			t.Errorf("put without a store: %q", body)
		}
	})
	thaw()
	a.bound(patience)
	eventually(t, "Redis to answer again", func() bool { return a.Ready(t.Context()) == nil })
	user.want(a, "usual", "user ada")
	if rec := httptest.NewRecorder(); true {
		a.OnStoreDown(Refuse, who).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
		if rec.Code != http.StatusInternalServerError {
			t.Errorf("without the middleware: %d", rec.Code)
		}
	}
}

// The request ends when the caller's own deadline does, however long the store may take.
func TestHungStoreEndsWithTheCallersDeadline(t *testing.T) {
	node := single.Get(t).Nodes()[0]
	a := serve(t, manager(t, client(t, single), Options{StoreTimeout: 10 * time.Second}))
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	cookie := a.SCS().Cookie.Name + "=" + b.cookie(a)
	handler := a.Middleware(a.verbs)
	call := func(verb string, within time.Duration) (int, time.Duration) {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		r := httptest.NewRequest(http.MethodGet, "/"+verb, nil).WithContext(ctx)
		r.Header.Set("Cookie", cookie)
		rec := httptest.NewRecorder()
		end, _ := ctx.Deadline()
		handler.ServeHTTP(rec, r)
		return rec.Code, time.Since(end)
	}
	if code, _ := call("who", time.Second); code != http.StatusOK {
		t.Fatalf("before: %d", code)
	}
	defer node.Thaw()
	node.Freeze()
	var late []time.Duration
	for range 15 {
		code, after := call("who", 100*time.Millisecond)
		if code != http.StatusServiceUnavailable {
			t.Errorf("answer %d", code)
		}
		late = append(late, after)
	}
	slices.Sort(late)
	t.Logf("after the deadline: %v at best, %v in the median, %v at worst", late[0], late[len(late)/2], late[len(late)-1])
	// The goal is 5 ms on a machine that has time for us; the quickest shows what is ours.
	if late[0] > 5*time.Millisecond {
		t.Errorf("%v after the deadline at best", late[0])
	}
}

func TestIdleTimeoutOfOneSession(t *testing.T) {
	rdb := client(t, single)
	for name, usual := range map[string]time.Duration{"none otherwise": 0, "a longer one otherwise": time.Hour, "a shorter one otherwise": time.Minute} {
		t.Run(name, func(t *testing.T) {
			a := serve(t, manager(t, rdb, Options{IdleTimeout: usual}))
			a.on("idle", func(_ http.ResponseWriter, r *http.Request) string {
				if err := a.SetIdleTimeout(r.Context(), time.Millisecond); err == nil {
					t.Error("a millisecond was accepted")
				}
				d, _ := time.ParseDuration(r.URL.Query().Get("d"))
				if err := a.SetIdleTimeout(r.Context(), d); err != nil {
					return err.Error()
				}
				return "set"
			})
			b := newBrowser(t)
			b.want(a, "login?as=ada", "welcome")
			key := a.keyOf(b.cookie(a))
			lives := func(when string, want time.Duration) {
				t.Helper()
				if ttl := rdb.PTTL(t.Context(), key).Val(); ttl > want || ttl < want-time.Minute/2 {
					t.Errorf("%s it lives for %v, want %v", when, ttl, want)
				}
			}
			b.want(a, "idle?d=10m", "set")
			lives("set", 10*time.Minute)
			rdb.PExpire(t.Context(), key, time.Second*30)
			b.want(a, "who", "ada")
			lives("read", 10*time.Minute)
			b.want(a, "put?key=k&value=v", "put")
			lives("written", 10*time.Minute)
			b.want(a, "idle?d=0s", "set")
			if usual == 0 {
				usual = 24 * time.Hour
			}
			lives("as usual again", usual)
		})
	}
}

func TestRememberMe(t *testing.T) {
	m := manager(t, client(t, single), Options{})
	m.SCS().Cookie.Persist = false
	a := serve(t, m)
	a.on("remember", func(_ http.ResponseWriter, r *http.Request) string {
		_ = a.Login(r.Context(), "ada")
		a.SCS().RememberMe(r.Context(), true)
		a.SCS().SetDeadline(r.Context(), time.Now().Add(30*24*time.Hour))
		return "welcome"
	})
	b := newBrowser(t)
	resp, _ := b.response(a, "login?as=ada")
	if c := resp.Cookies(); len(c) != 1 || !c[0].Expires.IsZero() || c[0].MaxAge != 0 {
		t.Errorf("a cookie that should end with the browser: %v", c)
	}
	resp, _ = b.response(a, "remember")
	if c := resp.Cookies(); len(c) != 1 || c[0].MaxAge < 29*24*3600 {
		t.Errorf("a cookie that should stay: %v", c)
	}
	key := a.principals.keys("ada")[0]
	if ttl := client(t, single).PTTL(t.Context(), key).Val(); ttl < 29*24*time.Hour {
		t.Errorf("its generation ends in %v, and the session with it", ttl)
	}
	b.want(a, "who", "ada")
}

func TestHandle(t *testing.T) {
	a := serve(t, manager(t, client(t, single), Options{}))
	a.on("handle", func(w http.ResponseWriter, r *http.Request) string {
		s := From(r.Context())
		if s.Err() != nil || s.Principal() != "ada" || s.String("k") != "v" || s.Get("k") != "v" || s.Get("none") != nil {
			t.Errorf("reads %q %q %v", s.Principal(), s.String("k"), s.Err())
		}
		if err := s.Put("k", "w"); err != nil || s.String("k") != "w" || a.SCS().GetString(r.Context(), "k") != "w" {
			t.Errorf("after Put: %q, %v", s.String("k"), err)
		}
		if err := s.Remove("old"); err != nil || s.Get("old") != nil {
			t.Errorf("after Remove: %v", err)
		}
		_ = http.NewResponseController(w).Flush()
		if s.Put("late", "x") != ErrLate || s.Remove("k") != ErrLate || a.counted("put", "late") != 2 {
			t.Error("a late Put is no error")
		}
		return "done"
	})
	b := newBrowser(t)
	b.call(a, "login?as=ada")
	b.call(a, "put?key=k&value=v")
	b.call(a, "put?key=old&value=v")
	b.want(a, "handle", "done")
	b.want(a, "get?key=k", "w")
	b.want(a, "get?key=old", "")
	none := From(t.Context())
	if none.Err() != ErrNoSession || none.Put("k", 1) != ErrNoSession || none.Remove("k") != ErrNoSession ||
		none.Principal() != "" || none.Get("k") != nil || none.String("k") != "" {
		t.Error("without a session there is something")
	}
	if a.Load(t.Context()) != ErrNoSession {
		t.Error("without a session one was loaded")
	}
}

// The key by which scs finds its data is private. If this fails, scs looks it up in another way, and ADR 11 must be thought over.
func TestSCSFindsItsDataInOurContext(t *testing.T) {
	sm := scs.New()
	key := scsKey(sm)
	if key == nil {
		t.Fatal("Load did not ask for its key")
	}
	ctx, err := sm.Load(t.Context(), "")
	if err != nil || ctx.Value(key) == nil {
		t.Fatalf("what Load asked for is not what it stores: %v", err)
	}
}

// Many goroutines of one request, one of them the first: one load, and no race.
func TestFirstUseByManyAtOnce(t *testing.T) {
	rdb := client(t, single)
	count := new(commands)
	rdb.AddHook(count)
	a := serve(t, manager(t, rdb, Options{}))
	a.on("many", func(_ http.ResponseWriter, r *http.Request) string {
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				got := Principal(r.Context())
				if i%2 == 0 {
					got = a.SCS().GetString(r.Context(), principalKey)
				}
				if got != "ada" {
					t.Errorf("it is %q's", got)
				}
			})
		}
		all.Wait()
		return "done"
	})
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	count.since()
	b.want(a, "many", "done")
	gets := 0
	for _, name := range count.since() {
		if name == "getex" {
			gets++
		}
	}
	if gets > 2 { // the second one is for her generation, on a slow machine
		t.Errorf("%d reads", gets)
	}
}

// Visitors without a session, and log-outs without one, must not fill Redis.
func TestStrangersStoreNothing(t *testing.T) {
	rdb := client(t, single)
	count := new(commands)
	rdb.AddHook(count)
	a := serve(t, manager(t, rdb, Options{IdleTimeout: time.Hour}))
	for range 20 {
		newBrowser(t).want(a, "who", "")
		newBrowser(t).want(a, "logout", "bye")
	}
	if sent := count.since(); len(sent) != 0 {
		t.Errorf("strangers sent %v", sent)
	}
	made := newBrowser(t).with(a, tokenA)
	made.want(a, "who", "")
	made.want(a, "logout", "bye")
	for key := range keys(t, rdb, a.opts.Prefix) {
		if ttl := rdb.PTTL(t.Context(), key).Val(); ttl > tombstone || ttl <= 0 {
			t.Errorf("%s stays for %v", key, ttl)
		}
	}
}

func FuzzCookie(f *testing.F) {
	m, err := NewWithStore(nullStore{}, &Options{Insecure: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("session=" + tokenA)
	f.Add("session=" + tokenA + "; session=" + tokenB)
	f.Add("session=#" + tokenA + "; session")
	f.Add(" other=1;\tsession = \"" + tokenA + "\" ;session=" + tokenA)
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Cookie", header)
		if token := m.cookie(r); token != "" && (!wellFormed(token) || !strings.Contains(header, token)) {
			t.Errorf("took %q from %q", token, header)
		}
		tokens := map[string]bool{}
		for _, c := range r.CookiesNamed("session") {
			if wellFormed(c.Value) {
				tokens[c.Value] = true
			}
		}
		if got := m.cookie(r); len(tokens) == 1 && !tokens[got] || len(tokens) != 1 && got != "" {
			t.Errorf("took %q from %q, net/http %v", got, header, tokens)
		}
	})
}

func FuzzToken(f *testing.F) {
	l := newLocator(MoveRaw)
	for _, s := range []string{tokenA, "", "#", l.handle + tokenA, strings.Repeat("a", 44)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		places, n := l.places(token)
		for _, p := range places[:n] {
			if !wellFormed(p.name) || strings.ContainsAny(p.name, "{}*: \r\n") {
				t.Errorf("%q is looked for at %q", token, p.name)
			}
		}
		if n == 1 && !strings.HasPrefix(token, l.handle) {
			t.Errorf("%q is taken for a handle", token)
		}
	})
}

type nullStore struct{}

func (nullStore) Find(string) ([]byte, bool, error)      { return nil, false, nil }
func (nullStore) Commit(string, []byte, time.Time) error { return nil }
func (nullStore) Delete(string) error                    { return nil }
