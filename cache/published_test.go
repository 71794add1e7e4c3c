package cache

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

// untracked is a client whose user may not ask for tracking.
func untracked(t *testing.T, clustered bool) redis.UniversalClient {
	t.Helper()
	ctx := testContext(t)
	var options *rediscluster.Options
	if !clustered {
		options = &rediscluster.Options{Nodes: 1}
	}
	cluster, err := rediscluster.Start(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Close() })
	for _, node := range cluster.Nodes() {
		admin := redis.NewClient(&redis.Options{Addr: node.Addr()})
		err := admin.Do(ctx, "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-client|tracking").Err()
		admin.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	o := redisclient.Options(cluster.Addrs()...)
	o.Username, o.Password = "app", "secret"
	rdb := redisclient.New(o)
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// Where servers do not tell what changes, processes tell each other, those that do not run included.
func TestChangesArePublishedWhereServersDoNotTell(t *testing.T) {
	for name, clustered := range map[string]bool{"cluster": true, "single": false} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			rdb := untracked(t, clustered)
			here := running(t, newStore(t, rdb, nil))
			there := running(t, sibling(t, here))
			idle := sibling(t, here)
			option, tagged := InProcess(Local{}), Tags(byCustomer)
			view := func(s *Store) *View[lead] { return Of[lead](s, "lead", option, tagged) }
			for what, change := range map[string]func() error{
				"delete":         func() error { return view(here).Delete(ctx, "1") },
				"idle delete":    func() error { return view(idle).Delete(ctx, "1") },
				"set":            func() error { return view(here).Set(ctx, "1", lead{Score: 2}) },
				"pattern":        func() error { _, err := here.Invalidate(ctx, "lead:?"); return err },
				"idle tag":       func() error { return idle.InvalidateTags(ctx, "customer:1") },
				"rule, no sweep": func() error { _, err := here.bar(ctx, "*"); return err },
				"lost on the way": func() error { // its sender dies after the change
					here.changing(ctx, view(here).prefix+"1")
					return rdb.Del(ctx, view(here).prefix+"1").Err()
				},
			} {
				settled(t, ctx, view(there), "1", loads(lead{Score: 1}))
				if err := change(); err != nil {
					t.Fatal(what, err)
				}
				eventually(t, what+" is heard of", func() bool {
					l, err := view(there).Get(ctx, "1")
					return what == "set" && l.Score == 2 || errors.Is(err, ErrMiss)
				})
				if err := view(here).Delete(ctx, "1"); err != nil {
					t.Fatal(err)
				}
				eventually(t, "gone", func() bool { _, err := view(there).Get(ctx, "1"); return errors.Is(err, ErrMiss) })
			}
		})
	}
}

func TestNothingIsPublishedForNobody(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](running(t, newStore(t, client(t, one.Get(t)), nil)), "lead")
	if err := leads.Delete(ctx, "1"); err != nil {
		t.Fatal(err)
	}
	if n, err := leads.store.rdb.Exists(ctx, leads.store.numberKey(), leads.store.markKey()).Result(); n != 0 || err != nil {
		t.Errorf("%d keys, %v", n, err)
	}
}

func TestNumbersOutOfOrder(t *testing.T) {
	s := newStore(t, client(t, one.Get(t)), nil)
	l := &hearing{store: s}
	l.begin(10, time.Second)
	for _, text := range []string{"12\n\"a\"", "13\n\"b\"", "9\n\"c\"", "rubbish", "11\nd"} {
		l.heard(text)
	}
	if l.upTo != 13 || len(l.ahead) != 0 {
		t.Errorf("up to %d, ahead %v", l.upTo, l.ahead)
	}
}
