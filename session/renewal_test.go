package session

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// renewing adds the verbs of these tests to an instance.
func renewing(a *app) (slow, held *gate) {
	slow, held = newGate(), newGate()
	a.on("slow", func(_ http.ResponseWriter, r *http.Request) string {
		_ = a.Load(r.Context())
		slow.pass()
		a.SCS().Put(r.Context(), "late", "v")
		a.SCS().Remove(r.Context(), "doomed")
		a.SCS().SetDeadline(r.Context(), time.Now().Add(time.Hour)) // a reason to send the cookie again
		return "done"
	})
	a.on("renew", func(_ http.ResponseWriter, r *http.Request) string {
		if err := a.SCS().RenewToken(r.Context()); err != nil {
			return err.Error()
		}
		if r.FormValue("hold") != "" {
			held.pass()
		}
		if as := r.FormValue("as"); as != "" {
			if err := a.Login(r.Context(), as); err != nil {
				return err.Error()
			}
		}
		if r.FormValue("destroy") != "" {
			if err := a.SCS().Destroy(r.Context()); err != nil {
				return err.Error()
			}
		}
		a.SCS().Put(r.Context(), "early", "v")
		return "renewed"
	})
	return slow, held
}

// What a request in flight changes is there after a renewal, as if it had been stored before, and opens nothing.
func TestChangesInFlightOutliveARenewal(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, opts := range map[string]Options{"hashed": {}, "raw": {TokenForm: Raw}, "sealed": {Secrets: []string{secretA}, IdleTimeout: time.Hour}} {
			for _, hold := range []bool{false, true} {
				a := serve(t, manager(t, rdb, opts))
				slow, held := renewing(a)
				b := newBrowser(t)
				b.want(a, "login?as=ada", "welcome")
				b.want(a, "put?key=doomed&value=v", "put")
				old := b.cookie(a)
				other := b.with(a, old)
				var inFlight sync.WaitGroup
				inFlight.Go(func() {
					resp, body := other.response(a, "slow")
					if resp.StatusCode != http.StatusOK || body != "done" || len(resp.Cookies()) > 0 {
						t.Errorf("%s: the request in flight got %d %q with cookies %v", name, resp.StatusCode, body, resp.Cookies())
					}
				})
				<-slow.entered
				if hold { // it is stored only after the request in flight has wanted to be
					inFlight.Go(func() { b.want(a, "renew?hold=1", "renewed") })
					<-held.entered
					close(slow.release)
					eventually(t, "the renewal to be under way", func() bool {
						gone, err := a.store.(*Store).tombstone(t.Context(), a.placeOf(old))
						return err == nil && strings.HasPrefix(gone, pending)
					})
					close(held.release)
				} else {
					b.want(a, "renew", "renewed")
					close(slow.release)
				}
				inFlight.Wait()
				for verb, want := range map[string]string{"get?key=late": "v", "get?key=early": "v", "get?key=doomed": "", "who": "ada"} {
					if got := b.call(a, verb); got != want {
						t.Errorf("%s, held %v: %s: %q, want %q", name, hold, verb, got, want)
					}
				}
				b.with(a, old).want(a, "who", "")
				b.with(a, old).want(a, "get?key=early", "")
				other.want(a, "who", "")
				if a.counted("commit", "renewed") != 1 {
					t.Errorf("%s, held %v: the change did not follow", name, hold)
				}
			}
		}
	})
}

// A log-in, a log-out or a log-out everywhere after the renewal: what is in flight is dropped, and revives nothing.
func TestChangesInFlightDoNotPassALogin(t *testing.T) {
	rdb := client(t, single)
	for _, after := range [][]string{
		{"renew?as=ada"}, {"renew?as=bob"}, {"login?as=ada"}, {"renew?destroy=1"}, {"renew", "logout"}, {"renew", "everywhere?who=ada"},
		{"renew", "everywhere?who=ada", "login?as=ada"}, {"renew", "login?as=ada"},
	} {
		a := everywhere(serve(t, manager(t, rdb, Options{Strict: true})))
		slow, _ := renewing(a)
		b := newBrowser(t)
		b.want(a, "login?as=ada", "welcome")
		other := b.with(a, b.cookie(a))
		var inFlight sync.WaitGroup
		inFlight.Go(func() { other.want(a, "slow", "done") })
		<-slow.entered
		for _, verb := range after {
			b.call(a, verb)
		}
		keys := rdb.DBSize(t.Context()).Val()
		close(slow.release)
		inFlight.Wait()
		if n := rdb.DBSize(t.Context()).Val(); n > keys {
			t.Errorf("%v: %d keys, before %d: something was revived", after, n, keys)
		}
		b.want(a, "get?key=late", "")
		other.want(a, "who", "")
		if a.counted("commit", "revoked") != 1 {
			t.Errorf("%v: the loss was not counted", after)
		}
	}
}

// A request that comes with the old token after the renewal does not take the new one's cookie away, and says that it has
// stored nothing.
func TestOldTokenDoesNotReplaceTheRenewedOne(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		for policy, want := range map[StoreDown]int{Refuse: http.StatusServiceUnavailable, Anonymous: http.StatusOK} {
			a := serve(t, manager(t, rdb, Options{OnStoreDown: policy}))
			renewing(a)
			b := newBrowser(t)
			b.want(a, "login?as=ada", "welcome")
			old := b.cookie(a)
			b.want(a, "renew", "renewed")
			late := b.with(a, old)
			resp, _ := late.response(a, "put?key=k&value=v")
			if resp.StatusCode != want || len(resp.Cookies()) > 0 {
				t.Errorf("%v: %d with cookies %v", policy, resp.StatusCode, resp.Cookies())
			}
			if a.counted("commit", "outdated") != 1 {
				t.Errorf("%v: it was not counted", policy)
			}
			b.want(a, "who", "ada")
			late.want(a, "login?as=bob", "welcome") // who logs in may
			late.want(a, "who", "bob")
			// After a log-out the token is as unknown as any.
			gone := b.with(a, b.cookie(a))
			b.want(a, "logout", "bye")
			gone.want(a, "put?key=k&value=v", "put")
			gone.want(a, "get?key=k", "v")
		}
	})
}

// The token is renewed twice while a change is in flight, or once more just when it has found the first new place.
func TestChangesFollowSeveralRenewals(t *testing.T) {
	rdb := client(t, single)
	hook := &beforeEach{}
	rdb.AddHook(hook)
	for _, when := range []string{"before", "between"} {
		a := serve(t, manager(t, rdb, Options{}))
		slow, _ := renewing(a)
		b := newBrowser(t)
		b.want(a, "login?as=ada", "welcome")
		other := b.with(a, b.cookie(a))
		var inFlight sync.WaitGroup
		inFlight.Go(func() {
			if resp, body := other.response(a, "slow"); resp.StatusCode != http.StatusOK || body != "done" {
				t.Errorf("%s: the request in flight got %d %q", when, resp.StatusCode, body)
			}
		})
		<-slow.entered
		b.want(a, "renew", "renewed")
		if when == "before" {
			b.want(a, "renew", "renewed")
		} else {
			first := a.keyOf(b.cookie(a))
			hook.set(func(cmd redis.Cmder) {
				if args := cmd.Args(); cmd.Name() == "evalsha" && len(args) > 3 && args[3] == first && args[1] == commitScript.Hash() {
					hook.set(nil)
					b.want(a, "renew", "renewed")
				}
			})
		}
		close(slow.release)
		inFlight.Wait()
		hook.set(nil)
		b.want(a, "get?key=late", "v")
		b.want(a, "get?key=early", "v")
		b.want(a, "who", "ada")
	}
}

// beforeEach does something before each command.
type beforeEach struct {
	mu sync.Mutex
	do func(cmd redis.Cmder)
}

func (h *beforeEach) set(do func(cmd redis.Cmder)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.do = do
}

func (h *beforeEach) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *beforeEach) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		h.mu.Lock()
		do := h.do
		h.mu.Unlock()
		if do != nil {
			do(cmd)
		}
		return next(ctx, cmd)
	}
}

func (h *beforeEach) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
