package scaleaware

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// log is a source whose position a test moves. With a gate, each look-up takes its position, hands out a channel and
// waits until that is closed.
type log struct {
	end   atomic.Uint64
	fails atomic.Bool
	calls atomic.Int64
	gate  chan chan struct{}
}

func (l *log) Position(ctx context.Context) (Token, error) {
	l.calls.Add(1)
	if l.fails.Load() {
		return Token{}, errors.New("the primary is down")
	}
	t := Token{1, 1, LSN(l.end.Load())}
	if l.gate != nil {
		release := make(chan struct{})
		l.gate <- release
		select {
		case <-release:
		case <-ctx.Done():
			return Token{}, ctx.Err()
		}
	}
	return t, nil
}

func written(t *testing.T, w *Watermark) LSN {
	t.Helper()
	ts, err := w.Written(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ts.For(1).LSN
}

func TestWatermarkNeverFalls(t *testing.T) {
	ctx, w := WithWatermark(t.Context())
	if WatermarkFrom(ctx) != w || WatermarkFrom(t.Context()) != nil {
		t.Fatal("the context does not carry the watermark")
	}
	for _, lsn := range []LSN{5, 3, 9, 0, 8} {
		w.Raise(Token{1, 1, lsn})
	}
	w.Raise(Token{})
	if got := written(t, w); got != 9 {
		t.Fatalf("written = %v, want 9", got)
	}
	w.Raise(Token{1, 2, 4})
	w.Raise(Token{1, 1, 99})
	if got, _ := w.Written(ctx); got.For(1) != (Token{1, 2, 4}) {
		t.Fatalf("written = %v, want the later timeline", got)
	}
}

func TestNilWatermarkIsLegal(t *testing.T) {
	var w *Watermark
	w.Raise(Token{1, 1, 1})
	w.RaiseFrom(new(log))
	w.Saw(Token{1, 1, 1})
	if ts, err := w.Written(t.Context()); ts != nil || err != nil || w.AsOf() != nil || w.Changes() != 0 {
		t.Fatal("a nil watermark holds something")
	}
}

func TestPositionIsAskedForOnce(t *testing.T) {
	_, w := WithWatermark(t.Context())
	src := new(log)
	src.end.Store(7)
	for range 10 {
		w.RaiseFrom(src)
	}
	if src.calls.Load() != 0 {
		t.Fatal("asked before anybody wanted to know")
	}
	for range 3 {
		if got := written(t, w); got != 7 {
			t.Fatalf("written = %v, want 7", got)
		}
	}
	if n := src.calls.Load(); n != 1 {
		t.Fatalf("asked %d times, want once", n)
	}
	src.end.Store(8)
	w.RaiseFrom(src)
	if got := written(t, w); got != 8 {
		t.Fatalf("after another write: %v, want 8", got)
	}
}

func TestFailedPositionIsAskedForAgain(t *testing.T) {
	_, w := WithWatermark(t.Context())
	bad, good := new(log), new(log)
	bad.end.Store(9)
	good.end.Store(7)
	bad.fails.Store(true)
	w.RaiseFrom(bad)
	w.RaiseFrom(good)
	ts, err := w.Written(t.Context())
	if err == nil || ts.For(1).LSN != 7 {
		t.Fatalf("Written = %v, %v, want what is known and an error", ts, err)
	}
	bad.fails.Store(false)
	if got := written(t, w); got != 9 || good.calls.Load() != 1 {
		t.Fatalf("written = %v after %d calls of the good source, want 9 after 1", got, good.calls.Load())
	}
}

func TestWriteDuringLookUpIsNotLost(t *testing.T) {
	_, w := WithWatermark(t.Context())
	src := &log{gate: make(chan chan struct{})}
	src.end.Store(1)
	w.RaiseFrom(src)
	var g sync.WaitGroup
	g.Go(func() { _, _ = w.Written(t.Context()) })
	release := <-src.gate
	src.end.Store(2)
	w.RaiseFrom(src)
	close(release)
	g.Wait()
	src.gate = nil
	if got := written(t, w); got != 2 {
		t.Fatalf("written = %v, want 2: the later write was settled by the position before it", got)
	}
}

// A slow look-up ends after a quick one has settled the write that both asked for, and another write has been noted.
func TestSlowLookUpDoesNotSettleALaterWrite(t *testing.T) {
	_, w := WithWatermark(t.Context())
	src := &log{gate: make(chan chan struct{})}
	src.end.Store(1)
	w.RaiseFrom(src)
	var slow, quick sync.WaitGroup
	slow.Go(func() { _, _ = w.Written(t.Context()) })
	releaseSlow := <-src.gate
	quick.Go(func() { _, _ = w.Written(t.Context()) })
	close(<-src.gate)
	quick.Wait()
	src.end.Store(2)
	w.RaiseFrom(src)
	close(releaseSlow)
	slow.Wait()
	src.gate = nil
	if got := written(t, w); got != 2 {
		t.Fatalf("written = %v, want 2", got)
	}
}

func TestWatermarkUnderConcurrency(t *testing.T) {
	_, w := WithWatermark(t.Context())
	src := new(log)
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for range 500 {
				at := LSN(src.end.Add(1)) // the commit, then the note: what dbsplit does
				w.RaiseFrom(src)
				if ts, err := w.Written(t.Context()); err != nil || ts.For(1).LSN < at {
					t.Errorf("written = %v, %v right after a commit at %v", ts, err, at)
					return
				}
				w.Saw(Token{1, 1, at})
				w.Raise(Token{2, 1, at})
				_ = w.AsOf()
			}
		})
	}
	g.Wait()
	if got := written(t, w); uint64(got) != src.end.Load() {
		t.Fatalf("written = %v, want %v", got, src.end.Load())
	}
}

func TestAsOfIsTheOldest(t *testing.T) {
	_, w := WithWatermark(t.Context())
	for _, at := range []Token{{1, 1, 5}, {2, 1, 9}, {1, 1, 3}, {1, 1, 8}, {}, {2, 2, 1}} {
		w.Saw(at)
	}
	if got := w.AsOf().String(); got != "1:1:0/3,2:1:0/9" {
		t.Fatalf("as of %s", got)
	}
}

func TestBeyondFourDatabasesTheOneRaisedLastStays(t *testing.T) {
	_, w := WithWatermark(t.Context())
	for system := range uint64(4) {
		w.Raise(Token{system + 1, 1, 1})
	}
	w.Raise(Token{1, 1, 2})
	w.Raise(Token{5, 1, 1})
	ts, _ := w.Written(t.Context())
	if len(ts) != 4 || ts.For(1).LSN != 2 || !ts.For(2).IsZero() || ts.For(5).IsZero() {
		t.Fatalf("written = %v, want all but database 2", ts)
	}
}

func BenchmarkRaise(b *testing.B) {
	_, w := WithWatermark(b.Context())
	b.ReportAllocs()
	for i := range b.N {
		w.Raise(Token{1, 1, LSN(i)})
	}
}

// recentLog is a log that knows a position as of a moment.
type recentLog struct {
	log
	asOf time.Time
	at   Token
}

func (s *recentLog) PositionSince(mark time.Time) (Token, bool) {
	return s.at, s.asOf.After(mark)
}

func TestRecentSourceIsNotAsked(t *testing.T) {
	src := &recentLog{at: Token{1, 1, 50}, asOf: time.Now().Add(-time.Hour)}
	src.end.Store(60)
	_, w := WithWatermark(t.Context())
	w.RaiseFrom(src)
	if known, open := w.Known(); len(known) != 0 || len(open) != 1 || open[0] != Source(src) {
		t.Errorf("before a later position is known: %v, %v", known, open)
	}
	src.asOf = time.Now().Add(time.Hour)
	if known, open := w.Known(); known.For(1) != src.at || len(open) != 0 {
		t.Errorf("after: %v, %v", known, open)
	}
	if written, err := w.Written(t.Context()); err != nil || written.For(1) != src.at || src.calls.Load() != 0 {
		t.Errorf("%v, %v, asked %d times", written, err, src.calls.Load())
	}
	src.asOf = time.Time{}
	w.RaiseFrom(src)
	if written, err := w.Written(t.Context()); err != nil || written.For(1) != (Token{1, 1, 60}) || src.calls.Load() != 1 {
		t.Errorf("a later write: %v, %v, asked %d times", written, err, src.calls.Load())
	}
}

func TestWrittenTokensStayAsTheyWere(t *testing.T) {
	_, w := WithWatermark(t.Context())
	w.Raise(Token{7, 1, 50})
	before, _ := w.Written(t.Context())
	w.Raise(Token{8, 1, 1})
	w.Raise(Token{7, 1, 90})
	if len(before) != 1 || before.For(7) != (Token{7, 1, 50}) {
		t.Errorf("tokens that were handed out have become %v", before)
	}
}

// A request came with an unknown position and writes. What it hands out must not look like what it came with: a response
// beside it may settle that one by a position from before the write.
func TestRecentSourceBesideAnUnknownPosition(t *testing.T) {
	src := &recentLog{at: Token{1, 1, 50}, asOf: time.Now().Add(time.Hour)}
	_, w := WithWatermark(t.Context())
	held := Tokens{UnknownPosition(1)}
	w.Raise(held[0])
	w.RaiseFrom(src)
	if written, err := w.Written(t.Context()); err != nil || held.Includes(written) {
		t.Errorf("%v are handed out as %v, %v", held, written, err)
	}
}
