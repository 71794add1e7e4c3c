package session

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Each way to begin a response: the session is stored and its cookie is among the headers that leave.
func TestSessionIsStoredBeforeTheFirstByte(t *testing.T) {
	rdb := client(t, single)
	for name, begin := range map[string]func(w http.ResponseWriter, r *http.Request){
		"nothing":     func(http.ResponseWriter, *http.Request) {},
		"WriteHeader": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) },
		"Write":       func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) },
		"ReadFrom":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, strings.NewReader("x")) },
		"Flush":       func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() },
		"controller":  func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() },
		"redirect":    func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/who", http.StatusSeeOther) },
		"hijack": func(w http.ResponseWriter, _ *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = rw.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\n")
			_ = w.Header().Write(rw)
			_, _ = rw.WriteString("\r\n")
			_ = rw.Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := serve(t, manager(t, rdb, Options{}))
			stored := make(chan int64, 1)
			a.on("begin", func(w http.ResponseWriter, r *http.Request) string {
				w.WriteHeader(http.StatusEarlyHints) // must not end the session's time
				if err := a.Login(r.Context(), "ada"); err != nil {
					t.Error(err)
				}
				begin(w, r)
				stored <- rdb.Exists(r.Context(), a.keyOf(a.SCS().Token(r.Context()))).Val()
				return ""
			})
			b := newBrowser(t)
			b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			b.call(a, "begin")
			if n := <-stored; n != 1 && name != "nothing" {
				t.Error("the response began before the session was stored")
			}
			b.want(a, "who", "ada")
		})
	}
}

func TestLatePutIsLostAndCounted(t *testing.T) {
	a := serve(t, manager(t, client(t, single), Options{}))
	for name, early := range map[string]bool{"after an early put": true, "alone": false} {
		t.Run(name, func(t *testing.T) {
			before := a.counted("put", "late")
			verb := fmt.Sprint("late", early)
			a.on(verb, func(w http.ResponseWriter, r *http.Request) string {
				if early {
					a.SCS().Put(r.Context(), "early", "kept")
				}
				_ = http.NewResponseController(w).Flush()
				a.SCS().Put(r.Context(), "late", "lost")
				return "done"
			})
			b := newBrowser(t)
			b.call(a, "login?as=ada")
			b.want(a, verb, "done")
			eventually(t, "the late put to be counted", func() bool { return a.counted("put", "late") == before+1 })
			b.want(a, "get?key=late", "")
			if early {
				b.want(a, "get?key=early", "kept")
			}
		})
	}
	b := newBrowser(t)
	a.on("early", func(w http.ResponseWriter, r *http.Request) string {
		a.SCS().Put(r.Context(), "list", []string{"not", "comparable"})
		return "written"
	})
	before := a.counted("put", "late")
	b.call(a, "early")
	b.call(a, "who")
	if a.counted("put", "late") != before {
		t.Error("an early put was counted as late")
	}
}

func TestCommandsPerRequest(t *testing.T) {
	rdb := client(t, single)
	count := new(commands)
	rdb.AddHook(count)
	for name, opts := range map[string]Options{"plain": {}, "idle timeout": {IdleTimeout: time.Hour}} {
		t.Run(name, func(t *testing.T) {
			a := serve(t, manager(t, rdb, opts))
			at := time.Now()
			a.principals.cache.clock = func() time.Time { return at } // however slow the machine is
			b := newBrowser(t)
			b.call(a, "login?as=ada") // loads the scripts
			b.call(a, "logout")
			b.call(a, "login?as=ada")
			count.since()
			for _, step := range []struct {
				browser *browser
				verb    string
				want    int
			}{
				{newBrowser(t), "who", 0},
				{b, "nothing", 0},
				{b, "who", 1},
				{b, "get?key=k", 1},
				{b, "put?key=k&value=v", 2},
				{newBrowser(t).with(a, "short"), "who", 0},
				{newBrowser(t).with(a, strings.Repeat("a", 42)+"!"), "who", 0},
				{newBrowser(t).with(a, strings.Repeat("a", 900_000)), "who", 0},
				{b, "logout", 2},
				{b, "who", 0},
			} {
				step.browser.call(a, step.verb)
				if sent := count.since(); len(sent) != step.want {
					t.Errorf("%s: commands %v, want %d", step.verb, sent, step.want)
				}
			}
		})
	}
}

func TestTwoDifferentCookiesAreNotTrusted(t *testing.T) {
	a := serve(t, manager(t, client(t, single), Options{}))
	b := newBrowser(t)
	b.call(a, "login?as=ada")
	name, token := a.SCS().Cookie.Name, b.cookie(a)
	for cookies, want := range map[string]string{
		name + "=" + token + "; " + name + "=" + strings.Repeat("A", 43): "",
		name + "=" + strings.Repeat("A", 43) + "; " + name + "=" + token: "",
		name + "=" + token + "; " + name + "=" + token:                   "ada",
		name + "=" + token + "; " + name + "=short":                      "ada",
	} {
		r := httptest.NewRequest(http.MethodGet, "/who", nil)
		r.Header.Set("Cookie", cookies)
		rec := httptest.NewRecorder()
		a.Middleware(a.verbs).ServeHTTP(rec, r)
		if rec.Body.String() != want {
			t.Errorf("%d cookies: %q, want %q", strings.Count(cookies, name), rec.Body, want)
		}
	}
}

func TestValuesThatCannotBeEncoded(t *testing.T) {
	a := serve(t, manager(t, client(t, single), Options{}))
	type unregistered struct{ X int }
	a.on("bad", func(w http.ResponseWriter, r *http.Request) string {
		a.SCS().Put(r.Context(), "k", unregistered{1})
		w.Header().Set("Content-Length", "4")
		w.Header().Set("Location", "/elsewhere")
		if n, err := w.Write([]byte("done")); n != 0 || err == nil {
			t.Errorf("Write = %d, %v: the handler is not told", n, err)
		}
		return ""
	})
	resp, body := newBrowser(t).response(a, "bad")
	if resp.StatusCode != http.StatusInternalServerError || resp.Header.Get("Content-Type") != "application/problem+json" ||
		resp.Header.Get("Location") != "" || strings.Contains(body, "done") {
		t.Errorf("answer %d %v %q", resp.StatusCode, resp.Header, body)
	}
}

func TestPanicStoresNothing(t *testing.T) {
	a := serve(t, manager(t, client(t, single), Options{}))
	handler := a.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = a.Login(r.Context(), "ada")
		panic(http.ErrAbortHandler)
	}))
	rec := httptest.NewRecorder()
	func() {
		defer func() {
			if p := recover(); p != http.ErrAbortHandler {
				t.Errorf("recovered %v", p)
			}
		}()
		handler.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
	}()
	if rec.Header().Get("Set-Cookie") != "" || a.counted("commit", "ok") != 0 {
		t.Error("a login that panicked was stored")
	}
}

func TestOptionsMistakesAreAllNamed(t *testing.T) {
	_, err := New(nil, &Options{Lifetime: -1, IdleTimeout: 1, StoreTimeout: -1, PositionTimeout: -1, CookieName: "a b", Prefix: "app:*", OnStoreDown: 7})
	for _, want := range []string{"Redis client", "Lifetime", "IdleTimeout", "StoreTimeout", "PositionTimeout", "CookieName", "Prefix", "OnStoreDown"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	rdb := client(t, single)
	if _, err := New(rdb, &Options{Insecure: true, CookieName: "__Host-x"}); err == nil {
		t.Error("a __Host- cookie without TLS was accepted")
	}
	if _, err := NewWithStore(nil, nil); err == nil {
		t.Error("no store was accepted")
	}
	var none *Store
	if _, err := NewWithStore(none, nil); err == nil {
		t.Error("a nil Store was accepted")
	}
	if m, err := New(rdb, nil); err != nil || m.Ready(t.Context()) != nil {
		t.Errorf("nil options: %v", err)
	}
	dead := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true})
	defer dead.Close()
	if m, err := New(dead, nil); err != nil || !errors.Is(m.Ready(t.Context()), ErrUnavailable) {
		t.Errorf("New must do no I/O, and Ready must notice: %v", err)
	}
}
