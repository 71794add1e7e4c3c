package session

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

// On a server that is full everybody can be logged out.
func TestLogoutsOnAFullServer(t *testing.T) {
	server, err := rediscluster.Start(t.Context(), &rediscluster.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	rdb := redisclient.New(redisclient.Options(server.Addrs()...))
	t.Cleanup(func() { rdb.Close() })
	a := everywhere(serve(t, manager(t, rdb, Options{Strict: true})))
	ada, too, bob := newBrowser(t), newBrowser(t), newBrowser(t)
	ada.want(a, "login?as=ada", "welcome")
	too.want(a, "login?as=ada", "welcome")
	bob.want(a, "login?as=bob", "welcome")
	if err := server.Nodes()[0].Fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	ada.want(a, "everywhere?who=ada", "2 <nil>")
	ada.want(a, "who", "")
	too.want(a, "who", "")
	devices, err := a.Devices(t.Context(), "bob")
	if err != nil || len(devices) != 1 {
		t.Fatal(devices, err)
	}
	if err := a.LogoutDevice(t.Context(), "bob", devices[0].ID); err != nil {
		t.Error(err)
	}
	bob.want(a, "who", "")
}

// A log-out everywhere whose answer is lost, and that is sent again, still finds the sessions whose data it has to delete.
func TestLogoutEverywhereThatIsSentTwice(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		again := &sentTwice{hash: revokeScript.Hash()}
		if err := revokeScript.Load(t.Context(), rdb).Err(); err != nil {
			t.Fatal(err)
		}
		a := everywhere(serve(t, manager(t, rdb, Options{Strict: true})))
		ada, too := newBrowser(t), newBrowser(t)
		ada.want(a, "login?as=ada", "welcome")
		too.want(a, "login?as=ada", "welcome")
		listed, err := rdb.HGetAll(t.Context(), a.principals.keys("ada")[1]).Result()
		if err != nil {
			t.Fatal(err)
		}
		devices, _ := parseDevices(listed)
		rdb.AddHook(again)
		ada.want(a, "everywhere?who=ada", "2 <nil>")
		if again.times.Load() == 0 {
			t.Fatal("nothing was sent twice")
		}
		ada.want(a, "who", "")
		too.want(a, "who", "")
		for _, d := range devices {
			if n, err := rdb.Exists(t.Context(), a.principals.store.key(d.at)).Result(); n > 0 || err != nil {
				t.Errorf("the data of %s are still there", d.ID)
			}
		}
		if left, err := a.Devices(t.Context(), "ada"); err != nil || len(left) > 0 {
			t.Errorf("listed are %v, %v", left, err)
		}
	})
}
