package session

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
)

// steppingUp renews the token in a request that was held before.
func steppingUp(a *app) *gate {
	g := newGate()
	a.on("stepup", func(_ http.ResponseWriter, r *http.Request) string {
		_ = a.Load(r.Context())
		g.pass()
		if err := a.SCS().RenewToken(r.Context()); err != nil {
			return err.Error()
		}
		return "renewed"
	})
	return g
}

// loggingOut are the ways in which a session ends, seen from a request that has loaded it.
var loggingOut = map[string]func(t *testing.T, a *app, b *browser, id string) error{
	"logout": func(_ *testing.T, a *app, b *browser, _ string) error { b.want(a, "logout", "bye"); return nil },
	"device": func(t *testing.T, a *app, _ *browser, id string) error {
		return a.LogoutDevice(t.Context(), "ada", id)
	},
	"destroy": func(_ *testing.T, a *app, b *browser, _ string) error { return a.SCS().Store.Delete(b.cookie(a)) },
	"eviction": func(t *testing.T, a *app, b *browser, _ string) error {
		return a.store.(*Store).rdb.Del(t.Context(), a.keyOf(b.cookie(a))).Err()
	},
}

// A request in flight that renews the token of a session which was ended meanwhile is told, and stores nothing.
func TestRenewalDoesNotReviveTheSession(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, end := range loggingOut {
			t.Run(name, func(t *testing.T) {
				a := serve(t, manager(t, rdb, Options{Strict: true}))
				g := steppingUp(a)
				b := newBrowser(t)
				b.want(a, "login?as=ada", "welcome")
				id, thief := devices(t, a, "ada")[0].ID, b.with(a, b.cookie(a))
				var all sync.WaitGroup
				all.Go(func() { thief.want(a, "stepup", ErrRevoked.Error()) })
				<-g.entered
				if err := end(t, a, b, id); err != nil {
					t.Error(err)
				}
				close(g.release)
				all.Wait()
				thief.want(a, "who", "")
				b.want(a, "who", "")
			})
		}
	})
}

// The session is ended between the renewal and the response: what was to go on under the new token is ended, too.
func TestLogoutDuringARenewal(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, name := range []string{"logout", "device", "destroy"} {
			for _, form := range []TokenForm{Hashed, Raw} {
				a := serve(t, manager(t, rdb, Options{Strict: true, TokenForm: form}))
				slow, held := renewing(a)
				b := newBrowser(t)
				b.want(a, "login?as=ada", "welcome")
				id, other := devices(t, a, "ada")[0].ID, b.with(a, b.cookie(a))
				var all sync.WaitGroup
				if name == "logout" { // it must have been loaded before
					a.on("late", func(_ http.ResponseWriter, r *http.Request) string {
						_ = a.Load(r.Context())
						slow.pass()
						if err := a.Logout(r.Context()); err != nil {
							return err.Error()
						}
						return "bye"
					})
					all.Go(func() { other.want(a, "late", "bye") })
					<-slow.entered
				}
				var renewed sync.WaitGroup
				renewed.Go(func() {
					if resp, _ := b.response(a, "renew?hold=1"); len(resp.Cookies()) > 0 {
						t.Errorf("%s: cookies %v", name, resp.Cookies())
					}
				})
				<-held.entered
				if name == "logout" {
					close(slow.release)
				} else if err := loggingOut[name](t, a, other, id); err != nil {
					t.Error(err)
				}
				all.Wait()
				close(held.release)
				renewed.Wait()
				if a.counted("renew", "revoked") != 1 {
					t.Errorf("%s: it was not counted", name)
				}
				for key := range keys(t, rdb, a.opts.Prefix) {
					if strings.HasPrefix(key, a.opts.Prefix) {
						t.Errorf("%s: %s was stored", name, key)
					}
				}
				b.want(a, "who", "")
			}
		}
	})
}

// The device gets another token just when it is logged out, under the old one: it is looked for at its new place.
func TestLogoutDeviceFollowsARenewal(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		hook := new(beforeEach)
		rdb.AddHook(hook)
		a := serve(t, manager(t, rdb, Options{Strict: true}))
		renewing(a)
		b := newBrowser(t)
		b.want(a, "login?as=ada", "welcome")
		id, old := devices(t, a, "ada")[0].ID, a.keyOf(b.cookie(a))
		hook.set(func(cmd redis.Cmder) {
			if args := cmd.Args(); cmd.Name() == "evalsha" && args[1] == deleteScript.Hash() && args[3] == old {
				hook.set(nil)
				b.want(a, "renew", "renewed")
			}
		})
		if err := a.LogoutDevice(t.Context(), "ada", id); err != nil {
			t.Error(err)
		}
		b.want(a, "who", "")
		if rdb.HExists(t.Context(), a.principals.keys("ada")[1], id).Val() {
			t.Error("it is still listed")
		}
		if err := a.LogoutDevice(t.Context(), "ada", id); !errors.Is(err, ErrNoDevice) {
			t.Errorf("again: %v", err)
		}
	})
}

// Of two requests that renew the token at once one does it. The other is told, and its session is not there twice.
func TestTwoRenewalsAtOnce(t *testing.T) {
	a := serve(t, manager(t, client(t, single), Options{Strict: true}))
	g := steppingUp(a)
	_, held := renewing(a)
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	other := b.with(a, b.cookie(a))
	var all, renewed sync.WaitGroup
	all.Go(func() { other.want(a, "stepup", ErrRevoked.Error()) })
	<-g.entered
	renewed.Go(func() { b.want(a, "renew?hold=1", "renewed") })
	<-held.entered
	close(g.release)
	all.Wait()
	close(held.release)
	renewed.Wait()
	b.want(a, "who", "ada")
	other.want(a, "who", "")
	if all := devices(t, a, "ada"); len(all) != 1 || all[0].at != a.placeOf(b.cookie(a)) {
		t.Errorf("devices %+v", all)
	}
}

// sentTwice sends a script once more when it was answered, as clients do when an answer is lost.
type sentTwice struct {
	redis.Hook
	hash  string
	times atomic.Int64
}

func (h *sentTwice) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *sentTwice) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *sentTwice) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); len(args) > 1 && args[1] == h.hash {
			if err := next(ctx, redis.NewCmd(ctx, args...)); err == nil {
				h.times.Add(1)
			}
		}
		return next(ctx, cmd)
	}
}

// A renewal whose answer was lost, and which the client sends again, goes on: nobody is logged out.
func TestRenewalIsSentTwice(t *testing.T) {
	rdb := client(t, single)
	h := &sentTwice{hash: renewScript.Hash()}
	rdb.AddHook(h)
	a := serve(t, manager(t, rdb, Options{Strict: true}))
	renewing(a)
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	for range 2 { // the first may be unknown to the server
		b.want(a, "renew", "renewed")
		b.want(a, "who", "ada")
	}
	if h.times.Load() == 0 {
		t.Error("nothing was sent twice")
	}
}
