package session

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// primary is a source that tells its system and can be down.
type primary struct {
	down atomic.Bool
	end  atomic.Uint64
}

func (p *primary) System() uint64 { return 1 }

func (p *primary) Position(context.Context) (scaleaware.Token, error) {
	if p.down.Load() {
		return scaleaware.Token{}, errors.New("the primary is down")
	}
	return at(scaleaware.LSN(p.end.Load())), nil
}

// learn asks as dbsplit does before it reads.
func learn(ctx context.Context, p *primary) string {
	mark := scaleaware.WatermarkFrom(ctx)
	ts, _ := mark.Written(ctx)
	if t, err := p.Position(ctx); err == nil {
		mark.Settle(ts.For(1), t)
	}
	return "read"
}

func withPrimary(a *app, p *primary) *app {
	a.on("write", func(_ http.ResponseWriter, r *http.Request) string {
		scaleaware.WatermarkFrom(r.Context()).RaiseFrom(p)
		return "written"
	})
	a.on("read", func(_ http.ResponseWriter, r *http.Request) string { return learn(r.Context(), p) })
	a.on("idle", func(http.ResponseWriter, *http.Request) string { return "nothing" })
	return a
}

func unknown(text string) bool { return strings.HasPrefix(text, "1:?") }

func TestUnknownPositionStaysUntilItIsLearned(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		p := new(primary)
		p.end.Store(9)
		p.down.Store(true)
		one, two := withPrimary(serve(t, manager(t, rdb, Options{})), p), withPrimary(serve(t, manager(t, rdb, Options{})), p)
		b := newBrowser(t)
		b.call(one, "login?as=ada")
		b.want(one, "write", "written")
		held := b.call(two, "reads")
		if !unknown(held) || one.counted("token", "error") != 1 {
			t.Fatalf("the other instance's reads wait for %q", held)
		}
		b.want(two, "idle", "nothing")
		b.want(two, "read", "read") // it learns nothing
		b.want(one, "reads", held)
		if n := two.counted("commit", "ok"); n != 0 {
			t.Errorf("%d commits that say nothing new", n)
		}
		p.down.Store(false)
		b.want(two, "idle", "nothing")
		b.want(one, "reads", held)
		b.want(two, "read", "read")
		b.want(one, "reads", "1:1:0/9")
		b.want(one, "read", "read")
		if n := two.counted("commit", "ok"); n != 1 {
			t.Errorf("%d commits", n)
		}
	})
}

// Of two requests that were given an unknown position one learns it while the other one writes.
func TestLearningDoesNotHideAParallelWrite(t *testing.T) {
	fails := func(_ *app, r *http.Request, p *primary) { scaleaware.WatermarkFrom(r.Context()).RaiseFrom(p) }
	is := func(want string) func(string) bool { return func(got string) bool { return got == want } }
	for name, c := range map[string]struct {
		learnsFirst bool
		other       func(a *app, r *http.Request, p *primary)
		want        func(string) bool
	}{
		"unknown, stored last":  {true, fails, unknown},
		"unknown, stored first": {false, fails, unknown},
		"known, stored last": {true, func(_ *app, r *http.Request, _ *primary) {
			mark := scaleaware.WatermarkFrom(r.Context())
			mark.Settle(mustWritten(t, mark).For(1), at(9))
			mark.Raise(at(12))
		}, is("1:1:0/C")},
		"of another kind, stored first": {false, func(a *app, r *http.Request, _ *primary) {
			a.SCS().Put(r.Context(), "k", "v")
		}, is("1:1:0/9")},
	} {
		t.Run(name, func(t *testing.T) {
			p := new(primary)
			p.end.Store(9)
			p.down.Store(true)
			a := withPrimary(serve(t, manager(t, client(t, single), Options{})), p)
			b := newBrowser(t)
			b.call(a, "login?as=ada")
			b.call(a, "write")
			before := b.call(a, "reads")
			first, stored := make(chan struct{}), a.counted("commit", "ok")
			together(t, a, b, 2, func(r *http.Request, i int) {
				if i == 0 {
					defer close(first)
				} else {
					<-first
					eventually(t, "the other request to be stored", func() bool { return a.counted("commit", "ok") > stored })
				}
				if mark := scaleaware.WatermarkFrom(r.Context()); (i == 0) == c.learnsFirst {
					mark.Settle(mustWritten(t, mark).For(1), at(9))
				} else {
					c.other(a, r, p)
				}
			})
			if got := b.call(a, "reads"); !c.want(got) || got == before {
				t.Errorf("the session holds %q, before it held %q", got, before)
			}
			if a.counted("commit", "conflict") == 0 {
				t.Error("the two requests did not meet")
			}
		})
	}
}

func mustWritten(t *testing.T, w *scaleaware.Watermark) scaleaware.Tokens {
	ts, err := w.Written(t.Context())
	if err != nil {
		t.Error(err)
	}
	return ts
}

func TestLateWriteAtAnUnknownPosition(t *testing.T) {
	p := new(primary)
	p.end.Store(9)
	p.down.Store(true)
	a := withPrimary(serve(t, manager(t, client(t, cluster), Options{})), p)
	a.on("stream", func(w http.ResponseWriter, r *http.Request) string {
		_ = http.NewResponseController(w).Flush()
		scaleaware.WatermarkFrom(r.Context()).RaiseFrom(p)
		return "end"
	})
	b := newBrowser(t)
	b.call(a, "login?as=ada")
	b.want(a, "stream", "end")
	eventually(t, "the word of the late write", func() bool { return unknown(b.call(a, "reads")) })
	p.down.Store(false)
	b.want(a, "stream", "end") // its position settles the one before
	eventually(t, "the position of the late write", func() bool { return b.call(a, "reads") == "1:1:0/9" })
}

func TestAdvance(t *testing.T) {
	u, v := scaleaware.Token{System: 1, LSN: 1}, scaleaware.Token{System: 1, LSN: 2}
	other := scaleaware.Token{System: 2, Timeline: 1, LSN: 3}
	one := func(t scaleaware.Token) scaleaware.Tokens { return scaleaware.Tokens{t} }
	for name, c := range map[string]struct {
		stored, base, mine, want scaleaware.Tokens
	}{
		"mine has learned it":                {one(u), one(u), one(at(9)), one(at(9))},
		"nobody has":                         {one(u), one(u), one(u), one(u)},
		"they have, and mine may not know":   {one(at(9)), one(u), one(u), one(u)},
		"both have":                          {one(at(9)), one(u), one(at(7)), one(at(9))},
		"they wrote at another unknown one":  {one(v), one(u), one(at(9)), one(v)},
		"mine did":                           {one(at(9)), one(u), one(v), one(v)},
		"they wrote at an unknown one":       {one(u), one(at(5)), one(at(9)), one(u)},
		"nothing is known of its system":     {one(u), one(u), one(other), scaleaware.Tokens{u, other}},
		"known positions only ever go up":    {one(at(5)), one(at(5)), one(at(4)), one(at(5))},
		"a session that has come into being": {nil, nil, one(u), one(u)},
	} {
		if got := advance(c.stored, c.base, c.mine); got.String() != c.want.String() {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
