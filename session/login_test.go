package session

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestLoginOnOneInstanceCountsOnAll(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		one, two := serve(t, manager(t, rdb, Options{})), serve(t, manager(t, rdb, Options{}))
		b := newBrowser(t)
		b.want(two, "who", "")
		b.want(one, "login?as=ada", "welcome")
		b.want(two, "who", "ada")
		b.want(two, "put?key=lang&value=en", "put")
		b.want(one, "get?key=lang", "en")
		b.want(two, "logout", "bye")
		b.want(one, "who", "")
		if b.cookie(one) != "" {
			t.Error("the cookie is still there after the log-out")
		}
	})
}

func TestLoginRenewsTheTokenAndDropsWhatWasThere(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := serve(t, manager(t, rdb, Options{}))
		b := newBrowser(t)
		b.call(a, "put?key=cart&value=book")
		anonymous := b.cookie(a)
		b.want(a, "login?as=ada", "welcome")
		first := b.cookie(a)
		b.want(a, "get?key=cart", "")
		b.want(a, "login?as=ada", "welcome") // a step up, or a changed password
		second := b.cookie(a)
		if anonymous == first || first == second || len(second) != 43 {
			t.Fatalf("tokens were kept")
		}
		for _, old := range []string{anonymous, first} {
			b.with(a, old).want(a, "who", "")
			if n := rdb.Exists(t.Context(), a.keyOf(old)).Val(); n != 0 {
				t.Error("an old session is still stored")
			}
		}
		b.want(a, "who", "ada")
	})
}

func TestPlantedTokenIsNotAdopted(t *testing.T) {
	a := serve(t, manager(t, client(t, cluster), Options{}))
	planted := strings.Repeat("A", 43)
	victim := newBrowser(t).with(a, planted)
	victim.call(a, "put?key=k&value=v") // a session begins, with a token of ours
	if got := victim.cookie(a); got == planted || got == "" {
		t.Fatalf("cookie %q", got)
	}
	victim = newBrowser(t).with(a, planted)
	victim.want(a, "login?as=ada", "welcome")
	newBrowser(t).with(a, planted).want(a, "who", "")
	victim.want(a, "who", "ada")

	// The attacker's own live session is planted: after the victim's login it must not be the victim's.
	attacker := newBrowser(t)
	attacker.call(a, "put?key=address&value=evil")
	victim = newBrowser(t).with(a, attacker.cookie(a))
	victim.want(a, "login?as=ada", "welcome")
	victim.want(a, "get?key=address", "")
	attacker.want(a, "who", "")
}

func TestLoginRefuses(t *testing.T) {
	m := manager(t, client(t, single), Options{})
	if err := m.Login(t.Context(), "ada"); err != ErrNoSession {
		t.Errorf("without middleware: %v", err)
	}
	if err := m.Logout(t.Context()); err != ErrNoSession {
		t.Errorf("without middleware: %v", err)
	}
	if Principal(t.Context()) != "" || m.Principal(t.Context()) != "" {
		t.Error("without middleware somebody is logged in")
	}
	a := serve(t, m)
	a.on("late", func(w http.ResponseWriter, r *http.Request) string {
		_ = http.NewResponseController(w).Flush()
		return m.Login(r.Context(), "ada").Error()
	})
	b := newBrowser(t)
	b.want(a, "late", ErrLate.Error())
	b.want(a, "who", "")
	if got := b.call(a, "login?as="); !strings.Contains(got, "principal") {
		t.Errorf("empty principal: %q", got)
	}
}

func TestTwoManagersAroundOneHandler(t *testing.T) {
	rdb := client(t, single)
	users := manager(t, rdb, Options{CookieName: "user", Prefix: t.Name() + ":user:"})
	staff := manager(t, rdb, Options{CookieName: "staff", Prefix: t.Name() + ":staff:"})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(_ http.ResponseWriter, r *http.Request) {
		if users.Login(r.Context(), "ada") != nil || staff.Login(r.Context(), "root") != nil {
			t.Error("cannot log in to both")
		}
	})
	mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(users.Principal(r.Context()) + "," + staff.Principal(r.Context()) + "," + Principal(r.Context())))
	})
	// Each middleware twice: the second must find the first.
	srv := httptest.NewServer(users.Middleware(users.Middleware(staff.Middleware(staff.Middleware(mux)))))
	defer srv.Close()
	a, b := &app{Manager: users, url: srv.URL}, newBrowser(t)
	resp, _ := b.response(a, "login")
	if n := len(resp.Cookies()); n != 2 {
		t.Errorf("%d cookies, want 2", n)
	}
	b.want(a, "who", "ada,root,root")
}

func TestCookie(t *testing.T) {
	rdb := client(t, single)
	m, err := New(rdb, &Options{Prefix: t.Name() + ":"})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	m.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = m.Login(r.Context(), "ada")
	})).ServeHTTP(rec, httptest.NewRequest("POST", "/", nil))
	resp := rec.Result()
	defer resp.Body.Close()
	cookies := resp.Cookies()
	if len(cookies) != 1 {
		t.Fatalf("cookies %v", cookies)
	}
	c := cookies[0]
	if c.Name != "__Host-session" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
		t.Errorf("cookie %v", c)
	}
	if resp.Header.Get("Vary") != "Cookie" || resp.Header.Get("Cache-Control") != `no-cache="Set-Cookie"` {
		t.Errorf("a cache may give this response to somebody else: %v", resp.Header)
	}
}
