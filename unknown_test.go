package scaleaware

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"sync"
	"testing"
	"time"
)

// namedLog is a source that tells its system.
type namedLog struct {
	log
	system uint64
}

func (l *namedLog) System() uint64 { return l.system }

func down() *namedLog {
	l := &namedLog{system: 1}
	l.fails.Store(true)
	return l
}

func TestFailedPositionIsAnUnknownToken(t *testing.T) {
	_, w := WithWatermark(t.Context())
	w.Raise(Token{1, 1, 5})
	w.Raise(Token{2, 1, 5})
	src := down()
	w.RaiseFrom(src)
	ts, err := w.Written(t.Context())
	unknown := ts.For(1)
	if err == nil || !unknown.Unknown() || ts.For(2) != (Token{2, 1, 5}) || len(ts) != 2 {
		t.Fatalf("Written = %v, %v, want system 1 unknown, and an error", ts, err)
	}
	if again, _ := w.Written(t.Context()); again.For(1) != unknown {
		t.Errorf("the same write is %v and %v", unknown, again)
	}
	w.RaiseFrom(src)
	if other, _ := w.Written(t.Context()); !other.For(1).Unknown() || other.For(1) == unknown {
		t.Errorf("another write is %v, as the one before", other)
	}
	src.end.Store(9)
	src.fails.Store(false)
	if ts, err := w.Written(t.Context()); err != nil || ts.For(1) != (Token{1, 1, 9}) {
		t.Errorf("Written = %v, %v when the position is known", ts, err)
	}
	never := down()
	never.system = 0
	_, w = WithWatermark(t.Context())
	w.RaiseFrom(never)
	if ts, err := w.Written(t.Context()); err == nil || len(ts) != 0 {
		t.Errorf("Written = %v, %v of a source that has never been reached", ts, err)
	}
}

func TestSettle(t *testing.T) {
	unknown, other, known := Token{1, 0, 77}, Token{1, 0, 78}, Token{1, 1, 9}
	for name, c := range map[string]struct {
		do   func(w *Watermark)
		want func(Token) bool
	}{
		"the one that was there": {func(w *Watermark) { w.Settle(unknown, known) }, func(t Token) bool { return t == known }},
		"one noted meanwhile stays": {
			func(w *Watermark) { w.Raise(other); w.Settle(unknown, known) },
			func(t Token) bool { return t == other },
		},
		"a position noted meanwhile is not covered": {
			func(w *Watermark) { w.Raise(Token{1, 1, 12}); w.Settle(unknown, known) },
			func(t Token) bool { return t.Unknown() && t != unknown },
		},
		"a position noted before stays if later": {
			func(w *Watermark) { w.Settle(unknown, Token{1, 1, 2}) },
			func(t Token) bool { return t == Token{1, 1, 3} },
		},
		"by another system":   {func(w *Watermark) { w.Settle(unknown, Token{2, 1, 9}) }, Token.Unknown},
		"by an unknown one":   {func(w *Watermark) { w.Settle(unknown, other) }, func(t Token) bool { return t == unknown }},
		"by nothing":          {func(w *Watermark) { w.Settle(unknown, Token{}) }, Token.Unknown},
		"of what is not here": {func(w *Watermark) { w.Settle(other, known) }, func(t Token) bool { return t == unknown }},
		"a lower raise changes nothing": {
			func(w *Watermark) { w.Raise(Token{1, 1, 2}) },
			func(t Token) bool { return t == unknown },
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, w := WithWatermark(t.Context())
			w.Raise(Token{1, 1, 3})
			w.Raise(unknown)
			c.do(w)
			ts, err := w.Written(t.Context())
			if err != nil || !c.want(ts.For(1)) {
				t.Errorf("Written = %v, %v", ts, err)
			}
		})
	}
	(*Watermark)(nil).Settle(unknown, known)
}

// A position that is asked for anyway settles what was unknown before, and nothing that became so meanwhile.
func TestPositionOfAWriteSettlesWhatWasUnknownBefore(t *testing.T) {
	_, w := WithWatermark(t.Context())
	src := &log{gate: make(chan chan struct{}, 1)}
	src.end.Store(9)
	ask := func(meanwhile func()) Token {
		w.RaiseFrom(src)
		var got Tokens
		var g sync.WaitGroup
		g.Go(func() { got, _ = w.Written(t.Context()) })
		release := <-src.gate
		meanwhile()
		close(release)
		g.Wait()
		return got.For(1)
	}
	w.Raise(Token{1, 0, 77})
	if got := ask(func() {}); got != (Token{1, 1, 9}) {
		t.Errorf("written = %v", got)
	}
	w.Raise(Token{1, 0, 77})
	if got := ask(func() { w.Raise(Token{1, 0, 78}) }); got != (Token{1, 0, 78}) {
		t.Errorf("written = %v, want the one noted meanwhile", got)
	}
}

// replica is a source that knows only what was read from it.
type replica struct{ log }

func (*replica) OnlyRead() {}

// What a replica has replayed covers what was read there, and not a write whose position is unknown.
func TestPositionOfAReadSettlesNoUnknownWrite(t *testing.T) {
	_, w := WithWatermark(t.Context())
	read := new(replica)
	read.end.Store(5)
	w.RaiseFrom(read)
	unknown := Token{1, 0, 77}
	w.Raise(unknown)
	carried, err := w.Written(t.Context())
	if later := carried.For(1); err != nil || !later.Unknown() || later == unknown {
		t.Errorf("written = %v, %v, want another unknown one than %v: it stands for what was read, too", carried, err, unknown)
	}
	if _, open := w.Known(); len(open) != 0 {
		t.Errorf("%v is still to be asked", open)
	}
	_, elsewhere := WithWatermark(t.Context())
	elsewhere.Raise(unknown)
	elsewhere.Raise(carried.For(1))
	elsewhere.Settle(unknown, Token{1, 1, 3}) // asked for before that read
	if got, err := elsewhere.Written(t.Context()); err != nil || got.For(1) != carried.For(1) {
		t.Errorf("elsewhere written = %v, %v, want %v", got, err, carried)
	}
	w.Settle(carried.For(1), Token{1, 1, 3})
	if got, err := w.Written(t.Context()); err != nil || got.For(1) != (Token{1, 1, 5}) {
		t.Errorf("written = %v, %v, want what was read", got, err)
	}
}

func TestReadAtAnUnknownPositionIsOfAnyAge(t *testing.T) {
	for _, order := range [][]Token{{{1, 0, 9}, {1, 1, 5}}, {{1, 1, 5}, {1, 0, 9}}} {
		_, w := WithWatermark(t.Context())
		for _, at := range order {
			w.Saw(at)
		}
		if got := w.AsOf().For(1); !got.Unknown() {
			t.Errorf("as of %v", got)
		}
	}
}

// What is written while others are asked takes the place of a write whose position could not be had, and stands for both.
func TestUnknownWriteOutlivesALaterOne(t *testing.T) {
	_, w := WithWatermark(t.Context())
	src, slow := down(), &log{gate: make(chan chan struct{})}
	w.RaiseFrom(src)
	before, _ := w.Written(t.Context())
	w.RaiseFrom(slow)
	var got Tokens
	var g sync.WaitGroup
	g.Go(func() { got, _ = w.Written(t.Context()) })
	release := <-slow.gate
	w.RaiseFrom(src)
	close(release)
	g.Wait()
	if now := got.For(1); !now.Unknown() || now == before.For(1) {
		t.Errorf("written = %v after %v, want another unknown position", got, before)
	}
}

// Writers note, a reader settles: whatever is written last is asked for, never lost.
func TestSettleUnderConcurrency(t *testing.T) {
	_, w := WithWatermark(t.Context())
	src := &namedLog{system: 1}
	var g sync.WaitGroup
	for range 4 {
		g.Go(func() {
			for i := range 300 {
				at := LSN(src.end.Add(1))
				src.fails.Store(i%3 == 0)
				w.RaiseFrom(src)
				if i%5 == 0 {
					w.Raise(UnknownPosition(1))
				}
				ts, _ := w.Written(t.Context())
				if have := ts.For(1); !have.Unknown() && have.LSN < at {
					t.Errorf("written = %v right after a commit at %v", have, at)
					return
				}
				if have := ts.For(1); have.Unknown() {
					w.Settle(have, Token{1, 1, LSN(src.end.Load())})
				}
			}
		})
	}
	g.Wait()
	src.fails.Store(false)
	w.RaiseFrom(src)
	if ts, err := w.Written(t.Context()); err != nil || ts.For(1) != (Token{1, 1, LSN(src.end.Load())}) {
		t.Errorf("written = %v, %v in the end", ts, err)
	}
}

// settles reads as dbsplit does: it asks where the primary stands now.
func settles(src *namedLog) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		mark := WatermarkFrom(r.Context())
		ts, _ := mark.Written(r.Context())
		if t, err := src.Position(r.Context()); err == nil {
			mark.Settle(ts.For(1), t)
		}
		reads(w, r)
	}
}

// The position of a write on one instance is not to be had. The client's next requests ask for it until one learns it.
func TestUnknownPositionTravelsUntilItIsSettled(t *testing.T) {
	src := down()
	idle := func(http.ResponseWriter, *http.Request) {}
	write := func(_ http.ResponseWriter, r *http.Request) { WatermarkFrom(r.Context()).RaiseFrom(src) }
	writer, other := carrier(t, plainHTTP, newSecret), carrier(t, plainHTTP, newSecret)
	writerURL, idleURL, readerURL, readsURL := serve(t, writer, write), serve(t, other, idle), serve(t, other, settles(src)), serve(t, other, reads)
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar}
	resp, _ := get(t, browser, writerURL)
	given, err := other.header.Verify(resp.Header.Get("Scaleaware-Token"))
	if err != nil || !given.For(1).Unknown() || writer.Stats().Failed != 1 {
		t.Fatalf("given %v, %v, stats %+v", given, err, writer.Stats())
	}
	for name, url := range map[string]string{"an idle request": idleURL, "a read that learns nothing": readerURL} {
		if resp, _ := get(t, browser, url); resp.Header.Get("Scaleaware-Token") != "" || len(resp.Cookies()) != 0 {
			t.Errorf("%s repeats the token", name)
		}
	}
	if _, body := get(t, browser, readsURL); body != given.String() {
		t.Errorf("another instance's reads wait for %q, want %v", body, given)
	}
	src.end.Store(9)
	src.fails.Store(false)
	if resp, _ := get(t, browser, readerURL); len(resp.Cookies()) != 1 {
		t.Error("the learned position does not reach the client")
	}
	if _, body := get(t, browser, readsURL); body != "1:1:0/9" {
		t.Errorf("after it was learned the reads wait for %q", body)
	}
}

// A service between the client and the one with the database never asks itself.
func TestUnknownPositionIsSettledByAnotherService(t *testing.T) {
	src := &namedLog{system: 1}
	src.end.Store(9)
	inner := serve(t, carrier(t, plainHTTP, newSecret), settles(src))
	outer := carrier(t, &CarrierOptions{NoCookie: true, PositionTimeout: time.Minute}, newSecret)
	client := &http.Client{Transport: outer.Transport(nil)}
	ctx, mark := WithWatermark(context.Background())
	mark.Raise(Token{1, 0, 77})
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, inner, nil)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if ts, _ := mark.Written(ctx); ts.For(1) != (Token{1, 1, 9}) {
		t.Errorf("written = %v", ts)
	}
}
