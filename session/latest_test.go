package session

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// silent is a client whose messages Redis takes from nobody, as a broken link between the nodes of a cluster would lose
// them: no connection is lost, and signs of life come in.
func silent(t *testing.T) redis.UniversalClient {
	t.Helper()
	rdb := client(t, single)
	if err := rdb.ACLSetUser(t.Context(), "silent", "on", "nopass", "allcommands", "allkeys", "resetchannels").Err(); err != nil {
		t.Fatal(err)
	}
	o := redisclient.Options(single.Get(t).Addrs()...)
	o.Username, o.Password = "silent", "any"
	out := redisclient.New(o)
	t.Cleanup(func() { _ = out.Close() })
	return out
}

// listed is within what time a log-out everywhere is noticed whose news got lost, with time for a busy machine. By the answers
// that are kept alone it would be ten seconds.
const listed = kept - 2*time.Second

func TestLogoutEverywhereWhoseNewsIsLost(t *testing.T) {
	one, two := serve(t, manager(t, silent(t), Options{})), running(t, serve(t, manager(t, client(t, single), Options{})))
	b := newBrowser(t)
	for round := range maxLatest + 2 { // so that the list is cut, too
		user := fmt.Sprint("user", round)
		b.want(one, "login?as="+user, "welcome")
		b.want(two, "who", user)
		eventually(t, "the instance to trust what it hears", func() bool {
			asked := two.counted("generation", "ok")
			b.want(two, "who", user)
			return two.counted("generation", "ok") == asked && two.principals.cache.checked.Load() > 0 && two.principals.cache.heard.Load() > 0
		})
		// Of listed sessions the data would be deleted, which needs no news.
		if err := one.principals.store.rdb.Del(t.Context(), one.principals.keys(user)[1]).Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := one.LogoutEverywhere(t.Context(), user); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		eventually(t, "the instance that heard nothing to notice", func() bool { return b.call(two, "who") == "" })
		if took := time.Since(begun); took > listed {
			t.Errorf("it took %v", took)
		}
	}
}

// More than the list has, between two looks, are noticed as well.
func TestManyLogoutsWhoseNewsIsLost(t *testing.T) {
	one, two := serve(t, manager(t, silent(t), Options{})), running(t, serve(t, manager(t, client(t, single), Options{})))
	var all []*browser
	for i := range 3 * maxLatest {
		b := newBrowser(t)
		b.want(one, fmt.Sprint("login?as=user", i), "welcome")
		all = append(all, b)
	}
	for i, b := range all {
		b.want(two, "who", fmt.Sprint("user", i))
	}
	for i := range all {
		if _, err := one.principals.store.rdb.Set(t.Context(), one.principals.keys(fmt.Sprint("user", i))[0], "other"+revokedMark+"1", time.Hour).Result(); err != nil {
			t.Fatal(err)
		}
		if err := one.principals.enterLatest(t.Context(), fmt.Sprint("user", i)); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	for _, b := range all {
		eventually(t, "the instance that heard nothing to notice", func() bool { return b.call(two, "who") == "" })
	}
	if took := time.Since(begun); took > listed {
		t.Errorf("it took %v", took)
	}
}

func TestStreamsEndWhenOnlyTheMessageIsLost(t *testing.T) {
	one, two := everywhere(serve(t, manager(t, silent(t), Options{}))), running(t, serve(t, manager(t, client(t, single), Options{})))
	_, causes := stream(t, two)
	for range 3 {
		for _, end := range []string{"logout", "everywhere?who=ada"} {
			b := newBrowser(t)
			b.want(one, "login?as=ada", "welcome")
			go b.with(two, b.cookie(two)).call(two, "stream")
			eventually(t, "the stream to be watched", func() bool { return len(two.watch.concerned("")) == 1 })
			b.call(one, end)
			select {
			case cause := <-causes:
				if cause != ErrRevoked {
					t.Errorf("%s: cause %v", end, cause)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%s: nobody looks", end)
			}
			eventually(t, "the stream to be over", func() bool { return len(two.watch.concerned("")) == 0 })
		}
	}
}

func TestManyStreamsAreLookedAtLessOften(t *testing.T) {
	for n, want := range map[int]time.Duration{0: watchEvery, watchMost: watchEvery, 2 * watchMost: 2 * watchEvery, 50 * watchMost: watchRarely} {
		h := &watch{by: map[string]map[*watcher]struct{}{"": {}}}
		for range n {
			h.by[""][&watcher{}] = struct{}{}
		}
		if got := h.every(); got != want {
			t.Errorf("%d streams: every %v, want %v", n, got, want)
		}
	}
}

func TestLatestIsWhatIsNew(t *testing.T) {
	var l latest
	full := func(n int) (out []string) {
		for i := range maxLatest {
			out = append(out, fmt.Sprint(n-i, " p", n-i))
		}
		return out
	}
	for _, step := range []struct {
		entries, news []string
		known         bool
	}{
		{nil, nil, false}, // nobody knows what was before
		{nil, nil, true},
		{[]string{"1 pa"}, []string{"pa"}, true},
		{[]string{"1 pa"}, nil, true},
		{[]string{"3 pa", "2 pb", "1 pa"}, []string{"pa", "pb"}, true},
		{nil, nil, false}, // evicted
		{[]string{"4 pc"}, []string{"pc"}, true},
		{[]string{"6 pc"}, []string{"pc"}, false}, // evicted, and written since
		{full(100), nil, false},
		{full(101), []string{"p101"}, true},
		{full(101 + maxLatest), nil, false},
	} {
		news, known := l.since(step.entries)
		if known != step.known || known && !slices.Equal(news, step.news) {
			t.Errorf("%v: %v, known %v", step.entries, news, known)
		}
	}
}
