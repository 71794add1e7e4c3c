package session

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// buffer is a log that requests may write at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

const (
	storeTimeout = 150 * time.Millisecond
	// patience is for a Redis that is well, on a machine that does other things too.
	patience = 20 * time.Second
)

// timed fails the test when a call took much longer than one or two calls to a hung store may; without the bound it takes
// longer than that, or as long as patience says.
func timed(t *testing.T, call func()) {
	t.Helper()
	start := time.Now()
	call()
	if took := time.Since(start); took > 2*storeTimeout+4*time.Second {
		t.Errorf("took %v with a store timeout of %v", took, storeTimeout)
	}
}

// bound sets the store timeout of an instance that has nothing to do.
func (a *app) bound(timeout time.Duration) {
	a.store.(*Store).opts.StoreTimeout, a.opts.StoreTimeout = timeout, timeout
}

func TestHungRedis(t *testing.T) {
	node := single.Get(t).Nodes()[0]
	rdb := client(t, single)
	out := new(buffer)
	logger := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	refusing := serve(t, manager(t, rdb, Options{StoreTimeout: patience, Logger: logger}))
	lenient := serve(t, manager(t, rdb, Options{StoreTimeout: patience, Logger: logger, OnStoreDown: Anonymous}))
	user, stranger := newBrowser(t), newBrowser(t)
	user.want(refusing, "login?as=ada", "welcome")
	user.want(lenient, "who", "ada")
	token := user.cookie(refusing)

	thaw := sync.OnceFunc(node.Thaw)
	defer thaw()
	node.Freeze()
	refusing.bound(storeTimeout)
	lenient.bound(storeTimeout)

	timed(t, func() {
		resp, body := user.response(refusing, "who")
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" ||
			resp.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, `"status":503`) {
			t.Errorf("refused with %d %v %s", resp.StatusCode, resp.Header, body)
		}
	})
	timed(t, func() { user.want(lenient, "who", "") })
	timed(t, func() { stranger.want(refusing, "who", "") })
	timed(t, func() {
		if resp, body := stranger.response(refusing, "login?as=eve"); resp.StatusCode != http.StatusServiceUnavailable || body == "welcome" {
			t.Errorf("a login that was not stored: %d %s", resp.StatusCode, body)
		}
	})
	timed(t, func() {
		if resp, body := stranger.response(lenient, "login?as=eve"); resp.StatusCode != http.StatusServiceUnavailable || body == "welcome" {
			t.Errorf("a login that was not stored: %d %s", resp.StatusCode, body)
		}
	})
	for _, verb := range []string{"login?as=ada", "logout"} {
		timed(t, func() {
			if got := user.call(lenient, verb); !strings.HasPrefix(got, ErrUnavailable.Error()) {
				t.Errorf("%s: %q", verb, got)
			}
		})
	}
	timed(t, func() {
		if resp, _ := user.response(lenient, "put?key=k&value=v"); len(resp.Cookies()) != 0 {
			t.Error("an outage replaced the cookie of a user who is logged in")
		}
	})
	timed(t, func() {
		if err := refusing.Ready(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("ready: %v", err)
		}
	})
	// The caller's own deadline holds when it is the shorter one.
	refusing.bound(patience)
	lenient.bound(patience)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	timed(t, func() {
		if _, _, err := refusing.store.FindCtx(short, token); !errors.Is(err, ErrUnavailable) {
			t.Errorf("with 20 ms: %v", err)
		}
	})

	thaw()
	eventually(t, "Redis to answer again", func() bool { return refusing.Ready(t.Context()) == nil })
	user.want(refusing, "who", "ada")
	user.want(lenient, "who", "ada")
	if strings.Contains(out.String(), token) {
		t.Error("the log contains a session's token")
	}
	if !strings.Contains(out.String(), "cannot be read") || !strings.Contains(out.String(), "cannot be stored") {
		t.Errorf("the failures were not logged: %s", out.String())
	}
}

func TestRedisHangsBetweenLoadAndCommit(t *testing.T) {
	node := single.Get(t).Nodes()[0]
	a := serve(t, manager(t, client(t, single), Options{StoreTimeout: patience}))
	thaw := sync.OnceFunc(node.Thaw)
	defer thaw()
	a.on("freeze", func(_ http.ResponseWriter, r *http.Request) string {
		_ = a.Load(r.Context())
		node.Freeze()
		a.bound(storeTimeout)
		a.SCS().Put(r.Context(), "k", "v")
		return "stored"
	})
	a.on("freezelogout", func(_ http.ResponseWriter, r *http.Request) string {
		_ = a.Load(r.Context())
		node.Freeze()
		a.bound(storeTimeout)
		if err := a.Logout(r.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("logout: %v", err)
		}
		return "not logged out"
	})
	b := newBrowser(t)
	b.call(a, "login?as=ada")
	timed(t, func() {
		if resp, body := b.response(a, "freeze"); resp.StatusCode != http.StatusServiceUnavailable || body == "stored" {
			t.Errorf("answer %d %s", resp.StatusCode, body)
		}
	})
	node.Thaw()
	a.bound(patience)
	eventually(t, "Redis to answer again", func() bool { return a.Ready(t.Context()) == nil })
	timed(t, func() { b.want(a, "freezelogout", "not logged out") })
	thaw()
	a.bound(patience)
	eventually(t, "Redis to answer again", func() bool { return a.Ready(t.Context()) == nil })
}

func TestSessionSurvivesAKilledMaster(t *testing.T) {
	c := cluster.Get(t)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	rdb := client(t, cluster)
	one, two := serve(t, manager(t, rdb, Options{})), serve(t, manager(t, client(t, cluster), Options{}))
	b, anonymous := newBrowser(t), newBrowser(t)
	b.want(one, "login?as=ada", "welcome")
	b.want(one, "put?key=k&value=v", "put")
	gone := newBrowser(t)
	gone.call(one, "login?as=eve")
	key := one.keyOf(b.cookie(one))

	master, err := c.MasterFor(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	replica, err := c.ReplicaOf(ctx, master)
	if err != nil {
		t.Fatal(err)
	}
	replicated(ctx, t, master, replica)
	master.Kill()
	defer func() {
		if err := errors.Join(master.Start(ctx), c.WaitHealthy(ctx)); err != nil {
			t.Error(err)
		}
	}()

	anonymous.want(one, "who", "") // goes on all the time
	for _, a := range []*app{one, two} {
		eventually(t, "the promoted replica to serve the session", func() bool {
			resp, body := b.response(a, "who")
			if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("answer %d", resp.StatusCode)
			}
			if resp.StatusCode == http.StatusOK && body != "ada" {
				t.Fatalf("logged out by the failover: %q", body)
			}
			return body == "ada"
		})
	}
	b.want(two, "get?key=k", "v")
	b.want(two, "put?key=k&value=w", "put") // the scripts are not on the promoted replica yet
	b.want(one, "get?key=k", "w")
	b.want(one, "logout", "bye")
	b.want(two, "who", "")
}

// replicated waits until the replica has all that the master had when asked.
func replicated(ctx context.Context, t *testing.T, master, replica *rediscluster.Node) {
	t.Helper()
	offset := func(n *rediscluster.Node, field string) string {
		for line := range strings.Lines(n.Client().Info(ctx, "replication").Val()) {
			if value, ok := strings.CutPrefix(line, field+":"); ok {
				return strings.TrimSpace(value)
			}
		}
		return field + " is missing"
	}
	eventually(t, "the replica to have everything", func() bool {
		return offset(master, "master_repl_offset") == offset(replica, "slave_repl_offset")
	})
}
