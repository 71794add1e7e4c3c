package session

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

var (
	cluster = rediscluster.NewShared(nil)
	single  = rediscluster.NewShared(&rediscluster.Options{Nodes: 1})
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(writerEnv); spec != "" {
		if err := writeMany(spec); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(single.Around(cluster.Around(m)),
		// It sleeps for a second between its looks at a dead server, and only then sees that its client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"),
		// scs.New starts it for a store that we replace, and it cannot be stopped without a data race.
		goleak.IgnoreAnyFunction("github.com/alexedwards/scs/v2/memstore.(*MemStore).startCleanup"))
}

// servers names the two kinds of Redis on which a session must behave alike.
var servers = map[string]*rediscluster.Shared{"single": single, "cluster": cluster}

func client(t testing.TB, shared *rediscluster.Shared) redis.UniversalClient {
	t.Helper()
	rdb := redisclient.New(redisclient.Options(shared.Get(t).Addrs()...))
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// onEach runs a test on a single node and on a cluster.
func onEach(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient)) {
	for name, shared := range servers {
		t.Run(name, func(t *testing.T) { test(t, client(t, shared)) })
	}
}

var (
	prefixes sync.Map // by test, so that its managers share their sessions, and repeated runs do not
	runs     atomic.Int64
)

func prefix(t testing.TB) string {
	name := fmt.Sprintf("%s:%d:", strings.NewReplacer("/", ":", " ", "").Replace(t.Name()), runs.Add(1))
	p, _ := prefixes.LoadOrStore(t, name)
	return p.(string)
}

// manager makes one with the test's own keys, over plain HTTP.
func manager(t testing.TB, rdb redis.UniversalClient, opts Options) *Manager {
	t.Helper()
	opts.Insecure = true
	if opts.StoreTimeout == 0 {
		opts.StoreTimeout = 5 * time.Second // the machine may be busy with other things
	}
	if opts.Prefix == "" {
		opts.Prefix = prefix(t)
	}
	m, err := New(rdb, &opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// app is one instance of a service. Its handlers are the verbs that tests call.
type app struct {
	*Manager
	url   string
	verbs *http.ServeMux
}

func serve(t testing.TB, m *Manager) *app {
	t.Helper()
	a := &app{Manager: m, verbs: http.NewServeMux()}
	a.on("who", func(_ http.ResponseWriter, r *http.Request) string { return Principal(r.Context()) })
	a.on("login", func(_ http.ResponseWriter, r *http.Request) string {
		if err := m.Login(r.Context(), r.URL.Query().Get("as")); err != nil {
			return err.Error()
		}
		return "welcome"
	})
	a.on("logout", func(_ http.ResponseWriter, r *http.Request) string {
		if err := m.Logout(r.Context()); err != nil {
			return err.Error()
		}
		return "bye"
	})
	a.on("put", func(_ http.ResponseWriter, r *http.Request) string {
		m.SCS().Put(r.Context(), r.URL.Query().Get("key"), r.URL.Query().Get("value"))
		return "put"
	})
	a.on("get", func(_ http.ResponseWriter, r *http.Request) string {
		return m.SCS().GetString(r.Context(), r.URL.Query().Get("key"))
	})
	a.on("reads", func(_ http.ResponseWriter, r *http.Request) string {
		ts, _ := scaleaware.WatermarkFrom(r.Context()).Written(r.Context())
		return ts.String()
	})
	srv := httptest.NewServer(m.Middleware(a.verbs))
	t.Cleanup(srv.Close)
	a.url = srv.URL
	return a
}

// on adds a verb. What it returns is the body.
func (a *app) on(verb string, do func(w http.ResponseWriter, r *http.Request) string) {
	a.verbs.HandleFunc("/"+verb, func(w http.ResponseWriter, r *http.Request) {
		if body := do(w, r); body != "" {
			_, _ = io.WriteString(w, body)
		}
	})
}

// browser keeps cookies. Like a real one it shares them among all ports of a host.
type browser struct {
	t      testing.TB
	client *http.Client
}

func newBrowser(t testing.TB) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{t, &http.Client{Jar: jar, Transport: transport, Timeout: 20 * time.Second}}
}

func (b *browser) response(a *app, verb string) (*http.Response, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, a.url+"/"+verb, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := b.client.Do(r)
	if err != nil {
		b.t.Error(err)
		return &http.Response{}, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Error(err)
	}
	return resp, string(body)
}

func (b *browser) call(a *app, verb string) string {
	b.t.Helper()
	_, body := b.response(a, verb)
	return body
}

// want calls a verb and checks its body.
func (b *browser) want(a *app, verb, body string) {
	b.t.Helper()
	if got := b.call(a, verb); got != body {
		b.t.Errorf("%s: %q, want %q", verb, got, body)
	}
}

func (b *browser) cookie(a *app) string {
	b.t.Helper()
	r, _ := http.NewRequest(http.MethodGet, a.url, nil) //nolint:noctx // never sent
	for _, c := range b.client.Jar.Cookies(r.URL) {
		if c.Name == a.SCS().Cookie.Name {
			return c.Value
		}
	}
	return ""
}

// with is a browser that has a cookie from elsewhere.
func (b *browser) with(a *app, value string) *browser {
	other := newBrowser(b.t)
	r, _ := http.NewRequest(http.MethodGet, a.url, nil) //nolint:noctx // never sent
	other.client.Jar.SetCookies(r.URL, []*http.Cookie{{Name: a.SCS().Cookie.Name, Value: value, Path: "/"}})
	return other
}

func (m *Manager) counted(operation, outcome string) int {
	return int(testutil.ToFloat64(m.commands.WithLabelValues(operation, outcome)))
}

// eventually polls a condition that depends on servers.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(25 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

// commands counts what a client sends.
type commands struct {
	mu    sync.Mutex
	names []string
}

// note leaves out what a new connection begins with.
func (c *commands) note(cmd redis.Cmder) {
	if slices.Contains([]string{"hello", "client", "ping"}, cmd.Name()) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names = append(c.names, cmd.Name())
}

func (c *commands) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *commands) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.note(cmd)
		return next(ctx, cmd)
	}
}

func (c *commands) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			c.note(cmd)
		}
		return next(ctx, cmds)
	}
}

// since returns what was sent since it was asked last.
func (c *commands) since() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := c.names
	c.names = nil
	return names
}

func encode(t testing.TB, deadline time.Time, values map[string]any) []byte {
	t.Helper()
	b, err := scs.GobCodec{}.Encode(deadline, values)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// serveHandler is another way into a manager's handlers.
func serveHandler(t testing.TB, m *Manager, h http.Handler) *app {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &app{Manager: m, url: srv.URL}
}

// keyOf is where a session is stored in the default form.
func (m *Manager) keyOf(token string) string { return m.opts.Prefix + hash(token) }

func (m *Manager) placeOf(token string) place {
	places, _ := m.store.(*Store).locator.places(token)
	return places[0]
}
