package session

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// Whoever makes a browser speak plain HTTP, or owns a sibling domain, gets no session out of it and plants none.
func TestPlainHTTPAndSiblingDomains(t *testing.T) {
	m, err := New(client(t, single), &Options{Prefix: prefix(t)})
	if err != nil {
		t.Fatal(err)
	}
	plain := serve(t, m)
	secure := httptest.NewTLSServer(m.Middleware(plain.verbs))
	t.Cleanup(secure.Close)
	// Browsers trust loopback without TLS, so the servers get a name, which is in the certificate.
	over := &app{Manager: m, url: "https://example.com"}
	addr := map[string]string{"example.com:80": strings.TrimPrefix(plain.url, "http://"), "example.com:443": secure.Listener.Addr().String()}
	plain.url = "http://example.com"
	b := newBrowser(t)
	transport := secure.Client().Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, name string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr[name])
	}
	b.client.Transport = transport
	b.want(over, "login?as=ada", "welcome")
	b.want(over, "who", "ada")
	b.want(plain, "who", "") // the same host: the browser keeps the cookie to itself
	b.want(over, "who", "ada")

	token := b.cookie(over)
	for _, header := range []string{"session=" + token, "__Secure-session=" + token, "__host-session=" + token, "__Host-session.=" + token, " __Host-session" + token} {
		r := httptest.NewRequest(http.MethodGet, "/who", nil)
		r.Header.Set("Cookie", header)
		w := httptest.NewRecorder()
		m.Middleware(plain.verbs).ServeHTTP(w, r)
		if w.Body.String() != "" {
			t.Errorf("%.20s… logged %s in", header, w.Body)
		}
	}
}

// By the time that an answer takes nobody learns whether a token exists: Redis is asked for a hash, by the same commands.
func TestUnknownTokenCostsWhatAKnownOneDoes(t *testing.T) {
	rdb := client(t, single)
	count := new(commands)
	rdb.AddHook(count)
	a := serve(t, manager(t, rdb, Options{}))
	known := newBrowser(t)
	known.want(a, "login?as=ada", "welcome")
	known.want(a, "get?key=k", "") // what is learned once
	count.since()
	known.want(a, "get?key=k", "")
	want := count.since()
	random := make([]byte, 32)
	_, _ = rand.Read(random)
	unknown := newBrowser(t).with(a, base64.RawURLEncoding.EncodeToString(random))
	unknown.want(a, "get?key=k", "")
	if got := count.since(); len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("an unknown token sends %v, a known one %v", got, want)
	}
}

// No log line, metric or answer has a token, nor the hash under which Redis has its session, whatever goes wrong.
func TestTokenIsToldToNobody(t *testing.T) {
	node := single.Get(t).Nodes()[0]
	log, reg := new(buffer), prometheus.NewRegistry()
	a := serve(t, manager(t, client(t, single), Options{
		StoreTimeout: storeTimeout, Registerer: reg, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}))
	a.on("late", func(w http.ResponseWriter, r *http.Request) string {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		a.SCS().Put(r.Context(), "late", "x")
		return "late"
	})
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	token := b.cookie(a)
	var told strings.Builder
	say := func(verb string) {
		resp, body := b.response(a, verb)
		told.WriteString(resp.Status + body)
	}
	say("late")
	if err := node.Client().Set(t.Context(), a.keyOf(token), "rubbish", 0).Err(); err != nil {
		t.Fatal(err)
	}
	say("who")
	b.want(a, "login?as=ada", "welcome")
	second := b.cookie(a)
	thaw := sync.OnceFunc(node.Thaw)
	t.Cleanup(thaw)
	node.Freeze()
	say("who")
	say("put?key=k&value=v")
	say("logout")
	thaw()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		told.WriteString(f.String())
	}
	told.WriteString(log.String())
	if log.String() == "" || !strings.Contains(told.String(), "503") {
		t.Errorf("nothing went wrong: %s", told.String())
	}
	for _, secret := range []string{token, second, hash(token), hash(second)} {
		if strings.Contains(told.String(), secret) {
			t.Errorf("a token or its hash is told: %s", told.String())
		}
	}
}

// Names of people, keys, values and browsers are data to the scripts: each person has sessions of their own, and ends those only.
func TestHostileNamesAreData(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := serve(t, manager(t, rdb, Options{Strict: true}))
		names := []string{
			"\x00", "a\x00", "a", `"`, `'`, "]]", `]==] .. redis.call("FLUSHALL") --[==[`, `'); redis.call('FLUSHALL') --`, "\r\n*1\r\n$8\r\nFLUSHALL\r\n", "1e309", "nan", "-0", "0",
			"!", "!1", "!9999999999999999", "*", "{", "}", "{}", "a}", "{a}", "a:generation", "%s%n", "\xff", strings.Repeat("x", 4000),
		}
		browsers := map[string]*browser{}
		for _, name := range names {
			b := newBrowser(t)
			b.want(a, "login?as="+url.QueryEscape(name), "welcome")
			b.want(a, "put?key="+url.QueryEscape(name)+"&value="+url.QueryEscape(name), "put")
			browsers[name] = b
		}
		for i, name := range names {
			browsers[name].want(a, "who", name)
			browsers[name].want(a, "get?key="+url.QueryEscape(name), name)
			if n, err := a.LogoutEverywhere(t.Context(), name); err != nil || n != 1 {
				t.Errorf("%.20q was logged out of %d devices, %v", name, n, err)
			}
			browsers[name].want(a, "who", "")
			for _, other := range names[i+1:] {
				browsers[other].want(a, "who", other)
			}
		}
	})
}
