package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// slowScripts makes each script take a while, as on a network that is far away, and counts them.
type slowScripts struct {
	commands
	hold func(ctx context.Context) error
}

func (s *slowScripts) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "evalsha" {
			return next(ctx, cmd)
		}
		s.note(cmd)
		if err := s.hold(ctx); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

// stored is what the store has of a browser's session.
func stored(t *testing.T, a *app, b *browser) (s *Store, token string, was loaded) {
	t.Helper()
	s, token = a.store.(*Store), b.cookie(a)
	was, err := s.find(t.Context(), token)
	if err != nil || !was.found {
		t.Fatal(err)
	}
	return s, token, was
}

// However many requests of a session end at once, they are stored with few commands, so that none waits for all the others.
func TestParallelWritersShareCommands(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		scripts := &slowScripts{hold: func(context.Context) error { time.Sleep(50 * time.Millisecond); return nil }}
		rdb.AddHook(scripts)
		a := serve(t, manager(t, rdb, Options{}))
		b := newBrowser(t)
		b.want(a, "login?as=ada", "welcome")
		b.call(a, "put?key=doomed&value=x")
		scripts.since()
		const n = 32
		together(t, a, b, n, func(r *http.Request, i int) {
			a.SCS().Remove(r.Context(), "doomed")
			a.SCS().Put(r.Context(), fmt.Sprint("key", i), "v")
		})
		if sent := len(scripts.since()); sent > n/4 {
			t.Errorf("%d writers took %d commands", n, sent)
		}
		for i := range n {
			b.want(a, fmt.Sprint("get?key=key", i), "v")
		}
		b.want(a, "get?key=doomed", "")
		if len(a.store.(*Store).crews.by) > 0 {
			t.Error("a crew is left behind")
		}
	})
}

// Each has its own time: one that is over ends neither those that it was to store, nor is it waited for.
func TestWriterWithoutTimeHoldsNobodyUp(t *testing.T) {
	rdb := client(t, single)
	held, release := make(chan struct{}, 10), make(chan struct{})
	scripts := &slowScripts{hold: func(ctx context.Context) error {
		held <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	a := serve(t, manager(t, rdb, Options{}))
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	s, _, was := stored(t, a, b)
	deadline, values, err := s.codec.Decode([]byte(was.value))
	if err != nil {
		t.Fatal(err)
	}
	rdb.AddHook(scripts)
	var all sync.WaitGroup
	write := func(ctx context.Context, key string, want error) (ended chan struct{}) {
		own := map[string]any{key: "v"}
		maps.Copy(own, values)
		mine, err := s.codec.Encode(deadline, own)
		if err != nil {
			t.Fatal(err)
		}
		ended = make(chan struct{})
		all.Go(func() {
			defer close(ended)
			if err := s.join(ctx, &change{base: was, mine: mine, expiry: deadline}); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", key, err, want)
			}
		})
		return ended
	}
	hurried := func(key string) (timeOver func(), ended chan struct{}) {
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		return cancel, write(ctx, key, ErrUnavailable)
	}
	queued := func(n int) {
		t.Helper()
		eventually(t, "the writers to wait", func() bool {
			s.crews.mu.Lock()
			defer s.crews.mu.Unlock()
			there := s.crews.by[was.at]
			return there != nil && len(there.waiting) == n
		})
	}
	over, _ := hurried("first") // it stores, and hangs
	<-held
	leadOver, _ := hurried("leads") // it is to store the others, and hangs, too
	queued(1)
	waitOver, waited := hurried("waits")
	queued(2)
	write(t.Context(), "patient", nil)
	write(t.Context(), "another", nil)
	queued(4)
	waitOver()
	<-waited
	over()
	<-held // the second
	leadOver()
	<-held // one of the patient
	hastyOver, hasty := hurried("hasty")
	queued(1)
	hastyOver()
	<-hasty
	close(release)
	all.Wait()
	for key, want := range map[string]string{"patient": "v", "another": "v", "waits": "", "hasty": ""} {
		b.want(a, "get?key="+key, want)
	}
	if len(s.crews.by) > 0 {
		t.Error("a crew is left behind")
	}
}

// One whose codec, or whose client's hook, panics leaves the way free to those who wait for it.
func TestPanicHoldsNobodyUp(t *testing.T) {
	rdb := client(t, single)
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	a := serve(t, manager(t, rdb, Options{}))
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	s, token, was := stored(t, a, b)
	rdb.AddHook(&slowScripts{hold: func(context.Context) error {
		once.Do(func() { close(entered); <-release; panic("a hook") })
		return nil
	}})
	write := func() error {
		base := was
		return s.CommitCtx(withLoaded(t.Context(), &base), token, []byte(was.value), time.Now().Add(time.Hour))
	}
	var all sync.WaitGroup
	all.Go(func() {
		defer func() {
			if recover() == nil {
				t.Error("the first one did not panic")
			}
		}()
		_ = write()
	})
	<-entered
	all.Go(func() {
		if err := write(); err != nil {
			t.Errorf("who waited: %v", err)
		}
	})
	eventually(t, "the second one to wait", func() bool {
		s.crews.mu.Lock()
		defer s.crews.mu.Unlock()
		return len(s.crews.by[was.at].waiting) == 1
	})
	close(release)
	all.Wait()
	if len(s.crews.by) > 0 {
		t.Error("a crew is left behind")
	}
}

// Changes that others of their crew were to store follow a renewal, and wait at the new place. One that gives up there is
// gone, and is not handed the lead.
func TestCrewAfterARenewal(t *testing.T) {
	rdb := client(t, single)
	entered, release := make(chan struct{}), make(chan struct{})
	a := serve(t, manager(t, rdb, Options{}))
	renewing(a)
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	s, _, was := stored(t, a, b)
	b.want(a, "renew", "renewed")
	_, _, now := stored(t, a, b)
	hook := &slowScripts{hold: func(ctx context.Context) error {
		entered <- struct{}{}
		<-release
		return nil
	}}
	rdb.AddHook(hook)
	at := func(base loaded) *change {
		return &change{base: base, mine: []byte(base.value), expiry: time.Now().Add(time.Hour)}
	}
	waits := func(at place, n int) {
		t.Helper()
		eventually(t, "it to wait", func() bool {
			s.crews.mu.Lock()
			defer s.crews.mu.Unlock()
			return s.crews.by[at] != nil && len(s.crews.by[at].waiting) == n
		})
	}
	var all sync.WaitGroup
	join := func(ctx context.Context, c *change, want error) (ended chan struct{}) {
		ended = make(chan struct{})
		all.Go(func() {
			defer close(ended)
			if err := s.join(ctx, c); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		})
		return ended
	}
	// Two at the old place wait for the first one, and one of them is to store the other.
	first := join(t.Context(), at(was), errRenewed)
	<-entered
	second := join(t.Context(), at(was), errRenewed)
	waits(was.at, 1)
	third := at(was)
	taken := join(t.Context(), third, errRenewed)
	waits(was.at, 2)
	release <- struct{}{}
	<-first
	<-entered
	release <- struct{}{}
	<-second
	<-taken
	// At the new place, somebody is storing.
	join(t.Context(), at(now), nil)
	<-entered
	follows, err := s.follow(t.Context(), third)
	if err != nil {
		t.Fatal(err)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	gone := join(ctx, follows, ErrUnavailable)
	waits(now.at, 1)
	giveUp()
	<-gone
	waits(now.at, 0)
	release <- struct{}{}
	all.Wait()
	if len(s.crews.by) > 0 {
		t.Error("a crew is left behind, and the session can never be stored again")
	}
}
