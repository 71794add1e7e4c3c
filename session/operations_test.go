package session

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

// What happened is counted under its name, and what did not is 0.
func TestActivity(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		m := manager(t, rdb, Options{})
		s := serve(t, m)
		count := func() map[string]int64 {
			t.Helper()
			op := m.Operations()[0]
			reply, err := op.Do(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			out := map[string]int64{}
			for _, e := range reply.(Activity).Events {
				if e.Title == "" {
					t.Errorf("%s has no title", e.ID)
				}
				if _, twice := out[e.ID]; twice {
					t.Errorf("%s is there twice", e.ID)
				}
				out[e.ID] = e.Count
			}
			return out
		}
		if m.Activity().Since.IsZero() {
			t.Error("nobody knows since when")
		}
		for id, n := range count() {
			if n != 0 {
				t.Errorf("before anything %s is %d", id, n)
			}
		}
		b := newBrowser(t)
		b.want(s, "login?as=ada", "welcome")
		b.want(s, "who", "ada")
		b.with(s, "not a token").call(s, "who")
		b.want(s, "login?as=ada", "welcome")
		b.want(s, "who", "ada")
		b.want(s, "logout", "bye")
		got := count()
		if got["logins"] != 2 || got["deleted"] != 2 || got["active"] < 2 || got["unavailable"] != 0 || got["merged"] != 0 || got["unreadable"] != 1 {
			t.Errorf("%v", got)
		}
	})
}

// Only who logs out a device, or everybody, is counted as that.
func TestRevokedIsCounted(t *testing.T) {
	a := everywhere(serve(t, manager(t, client(t, single), Options{Strict: true})))
	revoked := func(want int64) {
		t.Helper()
		for _, e := range a.Activity().Events {
			if e.ID == "revoked" && e.Count != want {
				t.Errorf("%s: %d, want %d", e.Title, e.Count, want)
			}
		}
	}
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	for range 10 {
		b.want(a, "who", "ada")
	}
	revoked(0)
	if err := a.LogoutDevice(t.Context(), "ada", devices(t, a, "ada")[0].ID); err != nil {
		t.Fatal(err)
	}
	revoked(1)
	b.want(a, "everywhere?who=ada", "0 <nil>")
	revoked(2)
}
