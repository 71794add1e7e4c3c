package scaleaware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// maxSystems bounds how many databases one watermark follows, so that a forged carrier stays small.
const maxSystems = 4

// Source tells a position that covers everything committed in its database before the call. dbsplit.DB is one.
// A Source is compared with ==, so implement it on a pointer.
type Source interface {
	Position(ctx context.Context) (Token, error)
}

// Watermark is what one unit of work (a request, a job, a cache fill) has to do with time. Its written side is
// the position that the work's later reads must have reached. Its as-of side is the oldest position that the
// work's reads were answered from. Both are kept per database. All methods are safe for concurrent use and do
// nothing on a nil Watermark.
type Watermark struct {
	mu      sync.Mutex
	written Tokens
	asOf    Tokens
	pending []pendingWrites
	changes uint64
}

// pendingWrites remembers when a source was noted last, so that a position asked for before that does not settle it.
type pendingWrites struct {
	src Source
	at  uint64
}

type watermarkKey struct{}

// WithWatermark returns a context that carries a new, empty Watermark, and the Watermark. Call it at the edge of
// a unit of work: whatever commits below raises it, and the edge sees that.
func WithWatermark(ctx context.Context) (context.Context, *Watermark) {
	w := new(Watermark)
	return context.WithValue(ctx, watermarkKey{}, w), w
}

// WatermarkFrom returns the Watermark that ctx carries, or nil, which is legal to use.
func WatermarkFrom(ctx context.Context) *Watermark {
	w, _ := ctx.Value(watermarkKey{}).(*Watermark)
	return w
}

// Raise makes later reads wait for t. It never lowers: of two tokens of one database the later one stays.
func (w *Watermark) Raise(t Token) {
	if w == nil || t.IsZero() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes++
	w.written = raise(w.written, t)
}

// RaiseFrom notes that something was, or may have been, committed to src. The position is asked for once, when
// somebody needs it: a unit of work that writes ten times and never reads pays for none, or for one.
func (w *Watermark) RaiseFrom(src Source) {
	if w == nil || src == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes++
	for i := range w.pending {
		if w.pending[i].src == src {
			w.pending[i].at = w.changes
			return
		}
	}
	w.pending = append(w.pending, pendingWrites{src: src, at: w.changes})
}

// Written returns the positions that later reads must have reached, one a database, asking the sources noted by
// RaiseFrom first. On an error the positions known so far are returned with it, and the failed sources stay
// noted, so that the next call asks again.
func (w *Watermark) Written(ctx context.Context) (Tokens, error) {
	if w == nil {
		return nil, nil
	}
	w.mu.Lock()
	asked := slices.Clone(w.pending)
	w.mu.Unlock()

	var errs []error
	for _, p := range asked {
		t, err := p.src.Position(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("scaleaware: position after a write is unknown, read from the primary: %w", err))
			continue
		}
		w.settle(p, t)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.written), errors.Join(errs...)
}

func (w *Watermark) settle(p pendingWrites, t Token) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written = raise(w.written, t)
	w.pending = slices.DeleteFunc(w.pending, func(now pendingWrites) bool { return now == p })
}

// Changes counts the calls of Raise and RaiseFrom that asked for something. An edge that has carried the watermark
// out compares it later, to know whether something was written since.
func (w *Watermark) Changes() uint64 {
	if w == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changes
}

// Saw notes that a read was answered from position t.
func (w *Watermark) Saw(t Token) {
	if w == nil || t.IsZero() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, have := range w.asOf {
		if have.System == t.System {
			if have.later(t) == have {
				w.asOf[i] = t
			}
			return
		}
	}
	if len(w.asOf) < maxSystems {
		w.asOf = append(w.asOf, t)
	}
}

// AsOf returns the oldest position that reads were answered from, one a database. Data derived from those reads
// is at least that fresh.
func (w *Watermark) AsOf() Tokens {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.asOf)
}

// Tokens holds at most one Token a database. Its text form joins them with commas.
type Tokens []Token

// For returns the token of one database, or the zero Token.
func (ts Tokens) For(system uint64) Token {
	for _, t := range ts {
		if t.System == system {
			return t
		}
	}
	return Token{}
}

// Merge returns the later of both for each database.
func (ts Tokens) Merge(other Tokens) Tokens {
	merged := slices.Clone(ts)
	for _, t := range other {
		merged = raise(merged, t)
	}
	return merged
}

// Covers reports whether data as of ts has everything that other names: false as soon as one database of
// other is missing from ts, lies ahead, or cannot be compared.
func (ts Tokens) Covers(other Tokens) bool {
	for _, t := range other {
		if ok, _ := ts.For(t.System).Covers(t); !ok {
			return false
		}
	}
	return true
}

// String returns the tokens joined with commas; empty for none. Zero tokens are left out.
func (ts Tokens) String() string {
	texts := make([]string, 0, len(ts))
	for _, t := range ts {
		if !t.IsZero() {
			texts = append(texts, t.String())
		}
	}
	return strings.Join(texts, ",")
}

// ParseTokens parses what Tokens.String writes: at most four tokens, no database twice. Errors wrap ErrToken.
func ParseTokens(s string) (Tokens, error) {
	if s == "" {
		return nil, nil
	}
	var ts Tokens
	for text := range strings.SplitSeq(s, ",") {
		t, err := ParseToken(text)
		if err != nil {
			return nil, err
		}
		if t.IsZero() || !ts.For(t.System).IsZero() || len(ts) == maxSystems {
			return nil, fmt.Errorf("%w: want one to %d tokens of different databases", ErrToken, maxSystems)
		}
		ts = append(ts, t)
	}
	return ts, nil
}

// raise keeps the database raised last at the end, and drops the first when there are more than maxSystems.
func raise(ts Tokens, t Token) Tokens {
	if t.IsZero() {
		return ts
	}
	for i, have := range ts {
		if have.System == t.System {
			if have.later(t) == have {
				return ts
			}
			return append(slices.Delete(ts, i, i+1), t)
		}
	}
	if len(ts) >= maxSystems {
		ts = slices.Delete(ts, 0, len(ts)-maxSystems+1)
	}
	return append(ts, t)
}
