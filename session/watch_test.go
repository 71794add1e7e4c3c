package session

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// stream holds a response open, as a WebSocket or a stream of events does, until its session ends, and tells why.
func stream(t testing.TB, a *app) (open *atomic.Int64, causes chan error) {
	open, causes = new(atomic.Int64), make(chan error, 10)
	a.on("stream", func(w http.ResponseWriter, r *http.Request) string {
		ctx, stop := a.Watch(r.Context())
		defer stop()
		_ = http.NewResponseController(w).Flush()
		open.Add(1)
		defer open.Add(-1)
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return "end"
	})
	return open, causes
}

func TestOpenStreamsEndWithTheirSession(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		one, two := everywhere(running(t, serve(t, manager(t, rdb, Options{})))), running(t, serve(t, manager(t, rdb, Options{})))
		open, causes := stream(t, two)
		for name, end := range map[string]func(b *browser){
			"logout":     func(b *browser) { b.want(one, "logout", "bye") },
			"everywhere": func(*browser) { newBrowser(t).call(one, "everywhere?who=ada") },
			"device": func(*browser) {
				if err := one.LogoutDevice(t.Context(), "ada", devices(t, one, "ada")[0].ID); err != nil {
					t.Error(err)
				}
			},
		} {
			t.Run(name, func(t *testing.T) {
				b, bob := newBrowser(t), newBrowser(t)
				b.want(one, "login?as=ada", "welcome")
				bob.want(one, "login?as=bob", "welcome")
				ended, left := make(chan string), make(chan struct{})
				ctx, hangUp := context.WithCancel(t.Context())
				go func() { ended <- b.with(two, b.cookie(two)).call(two, "stream") }()
				go func() {
					defer close(left)
					r, _ := http.NewRequestWithContext(ctx, http.MethodGet, two.url+"/stream", nil)
					if resp, err := bob.client.Do(r); err == nil {
						<-ctx.Done()
						_ = resp.Body.Close()
					}
				}()
				eventually(t, "both streams to be open", func() bool { return open.Load() == 2 })
				// A message that nobody's log-out stands behind ends nothing.
				for _, news := range []string{principalNews("ada"), principalNews("bob"), sessionNews(hash(b.cookie(two))), "p", "s", "", "x"} {
					rdb.Publish(t.Context(), two.watch.store.channel(), news)
				}
				begun := time.Now()
				end(b)
				if got := <-ended; got != "end" {
					t.Errorf("stream: %q", got)
				}
				if cause := <-causes; cause != ErrRevoked {
					t.Errorf("cause %v", cause)
				}
				t.Logf("after %v", time.Since(begun))
				if n := open.Load(); n > 1 {
					t.Errorf("%d streams are open", n)
				}
				bob.want(two, "who", "bob")
				hangUp()
				<-left
				if cause := <-causes; cause == ErrRevoked {
					t.Error("bob's session was taken for ended")
				}
				eventually(t, "all watchers to be gone", func() bool { return len(two.watch.concerned("")) == 0 })
			})
		}
	})
}

// Subscriptions are killed over and over, and the log-out falls between: the regular look finds it.
func TestStreamsEndWhenTheNewsIsLost(t *testing.T) {
	rdb := client(t, single)
	one, two := serve(t, manager(t, rdb, Options{})), running(t, serve(t, manager(t, rdb, Options{})))
	_, causes := stream(t, two)
	b := newBrowser(t)
	b.want(one, "login?as=ada", "welcome")
	ended := make(chan string, 1)
	go func() { ended <- b.with(two, b.cookie(two)).call(two, "stream") }()
	eventually(t, "the stream to be watched", func() bool { return len(two.watch.concerned("")) == 1 })
	// What LogoutEverywhere does, without telling anybody.
	keys := two.principals.keys("ada")
	rdb.ClientKillByFilter(t.Context(), "TYPE", "pubsub")
	rdb.Set(t.Context(), keys[0], "other"+revokedMark+"1", time.Hour)
	begun := time.Now()
	<-ended
	if cause := <-causes; cause != ErrRevoked {
		t.Errorf("cause %v", cause)
	}
	if took := time.Since(begun); took > watchEvery+3*time.Second {
		t.Errorf("it took %v", took)
	}
	b.want(two, "who", "")
}

func TestWatchOfNobodyAndAtTheDeadline(t *testing.T) {
	a := running(t, serve(t, manager(t, client(t, single), Options{})))
	a.on("nobody", func(_ http.ResponseWriter, r *http.Request) string {
		ctx, stop := a.Watch(r.Context())
		if ctx.Err() != nil {
			return "ended"
		}
		stop()
		return "lives"
	})
	a.on("deadline", func(_ http.ResponseWriter, r *http.Request) string {
		a.SCS().SetDeadline(r.Context(), time.Now().Add(50*time.Millisecond))
		ctx, stop := a.Watch(r.Context())
		defer stop()
		<-ctx.Done()
		return context.Cause(ctx).Error()
	})
	b := newBrowser(t)
	b.want(a, "nobody", "lives")
	b.want(a, "login?as=ada", "welcome")
	b.want(a, "deadline", ErrRevoked.Error())
	if ctx, stop := a.Watch(t.Context()); ctx.Err() != nil {
		t.Error("without a session it has ended")
	} else {
		stop()
	}
}

// A log-in gets its generation when its response begins. A stream in the same request is not ended for that, however the
// principal's present generation began, and is ended by what comes later.
func TestWatchInTheRequestOfALogin(t *testing.T) {
	rdb := client(t, single)
	for _, when := range []string{"never", "before", "in the request"} {
		a := everywhere(serve(t, manager(t, rdb, Options{})))
		if when == "before" {
			newBrowser(t).call(a, "everywhere?who=ada")
		}
		a.on("enter", func(w http.ResponseWriter, r *http.Request) string {
			if when == "in the request" {
				if _, err := a.LogoutEverywhere(r.Context(), "ada"); err != nil {
					t.Error(err)
				}
			}
			if err := a.Login(r.Context(), "ada"); err != nil {
				t.Error(err)
			}
			ctx, stop := a.Watch(r.Context())
			defer stop()
			look := func(moment string, want error) {
				t.Helper()
				if err := a.watch.check(r.Context(), ""); err != nil {
					t.Error(err)
				}
				if got := context.Cause(ctx); got != want {
					t.Errorf("revoked %s, %s: %v, want %v", when, moment, got, want)
				}
			}
			look("before it is stored", nil)
			_ = http.NewResponseController(w).Flush()
			look("when it is stored", nil)
			newBrowser(t).call(a, "everywhere?who=ada")
			look("after a log-out everywhere", ErrRevoked)
			return "done"
		})
		newBrowser(t).want(a, "enter", "done")
	}
}

// partly is a cluster some of whose masters do not answer. What go-redis returns of a pipeline is the first error there is, in
// the order of the commands, which may be that a key is not there.
type partly struct {
	commands
	down func(i int) bool
}

func (p *partly) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (p *partly) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		_ = next(ctx, cmds)
		for i, cmd := range cmds {
			if p.down(i) {
				cmd.SetErr(errors.New("dial tcp: connection refused"))
			}
		}
		for _, cmd := range cmds {
			if err := cmd.Err(); err != nil {
				return err
			}
		}
		return nil
	}
}

// A stream whose master does not answer goes on; those of the others are looked at.
func TestWatchWhenOneMasterIsDown(t *testing.T) {
	for name, down := range map[string]func(i int) bool{
		"those behind one without a generation": func(i int) bool { return i >= 2 },
		"the sessions'":                         func(i int) bool { return i == 0 || i == 2 },
		"none":                                  func(int) bool { return false },
		"all":                                   func(int) bool { return true },
	} {
		rdb := client(t, single)
		a := serve(t, manager(t, rdb, Options{}))
		b := newBrowser(t)
		b.want(a, "login?as=ada", "welcome")
		s, _, was := stored(t, a, b)
		v, err := viewOf(tolerant{s.codec}, was.value)
		if err != nil {
			t.Fatal(err)
		}
		rdb.AddHook(&partly{down: down})
		gone, endGone := context.WithCancelCause(t.Context())
		lives, endLives := context.WithCancelCause(t.Context())
		defer endGone(nil)
		defer endLives(nil)
		err = a.watch.look(t.Context(), []*watcher{
			{at: was.at, principal: "nobody has a generation", generation: "x", end: endGone},
			{at: was.at, principal: "ada", generation: v.text(generationKey), end: endLives},
		})
		if (err == nil) != (name == "none") || err != nil && !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if cause := context.Cause(lives); cause != nil {
			t.Errorf("%s: a session that lives: %v", name, cause)
		}
		if cause := context.Cause(gone); name != "all" && cause != ErrRevoked {
			t.Errorf("%s: a session that was revoked: %v", name, cause)
		}
	}
}
