package session

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func devices(t testing.TB, a *app, principal string) []Device {
	t.Helper()
	all, err := a.Devices(t.Context(), principal)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDevices(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		one, two := serve(t, manager(t, rdb, Options{})), running(t, serve(t, manager(t, rdb, Options{})))
		for _, a := range []*app{one, two} {
			a.on("current", func(_ http.ResponseWriter, r *http.Request) string {
				all, err := a.Devices(r.Context(), Principal(r.Context()))
				for _, d := range all {
					if d.Current {
						return d.ID
					}
				}
				return fmt.Sprint("none ", err)
			})
			a.on("renew", func(_ http.ResponseWriter, r *http.Request) string {
				return fmt.Sprint(a.SCS().RenewToken(r.Context()))
			})
		}
		laptop, phone, bob := newBrowser(t), newBrowser(t), newBrowser(t)
		laptop.want(one, "login?as=ada", "welcome")
		phone.want(two, "login?as=ada", "welcome")
		bob.want(two, "login?as=bob", "welcome")
		all := devices(t, one, "ada")
		if len(all) != 2 || all[0].Since.Before(all[1].Since) || time.Since(all[0].Since).Abs() > time.Minute ||
			!strings.Contains(all[0].Agent, "Go-http-client") || all[0].Current {
			t.Fatalf("devices %+v", all)
		}
		onLaptop, onPhone := laptop.call(two, "current"), phone.call(one, "current")
		if onLaptop == onPhone || onPhone != all[0].ID || onLaptop != all[1].ID {
			t.Errorf("laptop %q, phone %q, of %+v", onLaptop, onPhone, all)
		}
		laptop.want(one, "renew", "<nil>") // a new token is the same device
		laptop.want(two, "current", onLaptop)
		if n := len(devices(t, two, "ada")); n != 2 {
			t.Errorf("after a renewal there are %d", n)
		}

		if err := one.LogoutDevice(t.Context(), "bob", onPhone); !errors.Is(err, ErrNoDevice) {
			t.Errorf("somebody else's device: %v", err)
		}
		if err := one.LogoutDevice(t.Context(), "ada", onPhone); err != nil {
			t.Fatal(err)
		}
		phone.want(one, "who", "")
		phone.want(two, "who", "")
		laptop.want(two, "who", "ada")
		if all := devices(t, one, "ada"); len(all) != 1 || all[0].ID != onLaptop {
			t.Errorf("devices %+v", all)
		}
		laptop.want(one, "logout", "bye")
		if all := devices(t, one, "ada"); len(all) != 0 {
			t.Errorf("devices %+v", all)
		}
	})
}

func TestListOfDevicesHealsItself(t *testing.T) {
	rdb := client(t, cluster)
	a := serve(t, manager(t, rdb, Options{}))
	list := a.principals.keys("ada")[1]
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	id := devices(t, a, "ada")[0].ID

	// Lost, by an eviction for example: it comes back when the session is used.
	rdb.Del(t.Context(), list)
	if all := devices(t, a, "ada"); len(all) != 0 {
		t.Fatalf("devices %+v", all)
	}
	a.principals.cache.lapse() // a while later
	b.want(a, "who", "ada")
	if all := devices(t, a, "ada"); len(all) != 1 || all[0].ID != id {
		t.Errorf("devices %+v", all)
	}
	if ttl := rdb.PTTL(t.Context(), list).Val(); ttl <= 0 {
		t.Error("the list never ends")
	}

	// What ended goes, what is just being stored stays, what cannot be read goes.
	gone := fmt.Sprintf(`%d {"n":%q,"h":true}`, time.Now().Add(-2*settled).UnixMilli(), hash(tokenA))
	unborn := fmt.Sprintf(`%d {"n":%q,"h":true}`, time.Now().UnixMilli(), hash(tokenB))
	rdb.HSet(t.Context(), list, "gone", gone, "unborn", unborn, "garbage", "garbage", "injected", fmt.Sprintf(`%d {"n":"x","h":true}`, time.Now().UnixMilli()))
	if all := devices(t, a, "ada"); len(all) != 1 {
		t.Errorf("devices %+v", all)
	}
	if left := rdb.HKeys(t.Context(), list).Val(); len(left) != 2 {
		t.Errorf("the list has %v", left)
	}

	// It is bounded.
	for i := range maxDevices + 5 {
		rdb.HSet(t.Context(), list, fmt.Sprint("old", i), strings.Replace(gone, hash(tokenA), hash(fmt.Sprint(i)), 1))
	}
	newBrowser(t).want(a, "login?as=ada", "welcome")
	if n := rdb.HLen(t.Context(), list).Val(); n != 3 {
		t.Errorf("the list has %d", n)
	}
}

func TestListOfDevicesIsBounded(t *testing.T) {
	rdb := client(t, single)
	a := serve(t, manager(t, rdb, Options{}))
	first := newBrowser(t)
	first.want(a, "login?as=bot", "welcome")
	for range maxDevices + 3 {
		newBrowser(t).want(a, "login?as=bot", "welcome")
	}
	if n := rdb.HLen(t.Context(), a.principals.keys("bot")[1]).Val(); n > maxDevices {
		t.Errorf("the list has %d", n)
	}
	first.want(a, "who", "bot") // out of the list, and still subject to a log-out everywhere
	if _, err := a.LogoutEverywhere(t.Context(), "bot"); err != nil {
		t.Fatal(err)
	}
	first.want(a, "who", "")
}
