package scaleaware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Source tells a position that covers everything committed in its database before the call. dbsplit.DB is one.
// A Source is compared with ==, so implement it on a pointer.
//
// One whose positions cover only what was read from it, such as a replica, has a method OnlyRead() as well: they make reads
// wait, and settle no unknown Token, which may stand for a write that was not there to be read yet.
type Source interface {
	Position(ctx context.Context) (Token, error)
}

// readSource is a Source whose positions cover only what was read from it.
type readSource interface {
	Source
	OnlyRead()
}

// SystemSource is a Source that knows its database's system identifier, 0 before it does. When its Position fails, the
// write is carried on as an unknown Token instead of being forgotten, so make System answer while the database is down.
type SystemSource interface {
	Source
	System() uint64
}

// RecentSource is a Source that often knows a position without asking its database. PositionSince returns one that covers
// everything which was committed, or read there, before mark; ok is false when it knows none. It must not block.
type RecentSource interface {
	Source
	PositionSince(mark time.Time) (t Token, ok bool)
}

// Watermark is what one unit of work (a request, a job, a cache fill) has to do with time. Its written side is
// the position that the work's later reads must have reached. Its as-of side is the oldest position that the
// work's reads were answered from. Both are kept per database. All methods are safe for concurrent use and do
// nothing on a nil Watermark.
type Watermark struct {
	mu      sync.Mutex
	written Tokens // known ones
	unknown Tokens // beside them, so that settling one of these takes none of those
	asOf    Tokens
	pending []pendingWrites
	seeds   []Seed
	seedBuf [1]Seed // most units of work have one, and it costs no allocation then
	changes uint64
}

// pendingWrites remembers when a source was noted last, so that a position asked for before that does not settle it.
type pendingWrites struct {
	src     Source
	at      uint64
	when    time.Time
	unknown Token // what stands for it since its position could not be had
}

type watermarkKey struct{}

// WithWatermark returns a context that carries a new, empty Watermark, and the Watermark. Call it at the edge of
// a unit of work: whatever commits below raises it, and the edge sees that.
func WithWatermark(ctx context.Context) (context.Context, *Watermark) {
	m := &marked{Context: ctx}
	return m, &m.mark
}

// marked is a context with its Watermark in it.
type marked struct {
	context.Context
	mark Watermark
}

func (m *marked) Value(key any) any {
	if key == (watermarkKey{}) {
		return &m.mark
	}
	return m.Context.Value(key)
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
	w.take(t)
}

// take is Raise without its count. w.mu is held.
func (w *Watermark) take(t Token) {
	if t.Unknown() {
		w.unknown = raise(w.unknown, t)
		return
	}
	w.reach(t)
}

// reach raises the known side. w.mu is held.
func (w *Watermark) reach(t Token) {
	before := w.written.For(t.System)
	w.written = raise(w.written, t)
	if w.written.For(t.System) != before && !w.unknown.For(t.System).IsZero() {
		// The unknown one now stands for t too, so what settles it must have been asked for after this.
		w.unknown = raise(w.unknown, UnknownPosition(t.System))
	}
}

// RaiseFrom notes that something was, or may have been, committed to src, or that what was read there must not be unseen
// again. The position is asked for once, when somebody needs it: a unit of work that writes ten times and never reads
// pays for none, or for one; for none, too, when src is a RecentSource that knows a later position by then.
func (w *Watermark) RaiseFrom(src Source) {
	if w == nil || src == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes++
	noted := pendingWrites{src: src, at: w.changes, when: time.Now()}
	for i := range w.pending {
		if before := w.pending[i]; before.src == src {
			if !before.unknown.IsZero() { // who asked for that may be about to carry it out
				noted.unknown = UnknownPosition(before.unknown.System)
			}
			w.pending[i] = noted
			return
		}
	}
	w.pending = append(w.pending, noted)
}

// Known is Written without asking any Source: the positions known by now, and the sources whose latest notes none of them
// covers. The Tokens must not be changed.
func (w *Watermark) Known() (known Tokens, open []Source) {
	if w == nil {
		return nil, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sow()
	w.recall()
	known = w.written
	if len(w.unknown) > 0 {
		known = w.written.Merge(w.unknown)
	}
	for _, p := range w.pending {
		open = append(open, p.src)
	}
	return known, open
}

// recall settles what recent sources can settle by themselves. w.mu is held.
func (w *Watermark) recall() {
	kept := w.pending[:0]
	for _, p := range w.pending {
		if recent, ok := p.src.(RecentSource); ok {
			if t, ok := recent.PositionSince(p.when); ok {
				w.reach(t)
				continue
			}
		}
		kept = append(kept, p)
	}
	clear(w.pending[len(kept):])
	w.pending = kept
}

// Written returns the positions that later reads must have reached, one a database, asking the sources noted by
// RaiseFrom first. On an error the positions known so far are returned with it, with an unknown Token for each failed
// source that is a SystemSource and knows its system; and the failed sources stay noted, so that the next call asks
// again. The Tokens must not be changed.
func (w *Watermark) Written(ctx context.Context) (Tokens, error) {
	if w == nil {
		return nil, nil
	}
	w.mu.Lock()
	w.sow()
	w.mu.Unlock()
	return w.gather(ctx)
}

// gather is Written without what was seeded and not asked for yet.
func (w *Watermark) gather(ctx context.Context) (Tokens, error) {
	w.mu.Lock()
	w.recall()
	if len(w.pending) == 0 && len(w.unknown) == 0 {
		defer w.mu.Unlock()
		return w.written, nil
	}
	asked, unknown := slices.Clone(w.pending), slices.Clone(w.unknown)
	w.mu.Unlock()

	var errs []error
	for _, p := range asked {
		t, err := p.src.Position(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("scaleaware: position after a write is unknown, read from the primary: %w", err))
			w.fail(p.src)
			continue
		}
		if recent, ok := p.src.(RecentSource); ok {
			if better, ok := recent.PositionSince(p.when); ok {
				t = better // of the timeline that was written to, if that was left while the question was under way
			}
		}
		w.answer(p, t, unknown)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.written.Merge(w.unknown)
	for _, p := range w.pending {
		all = raise(all, p.unknown)
	}
	return all, errors.Join(errs...)
}

// fail gives the writes to src a token that stands for them wherever they are carried.
func (w *Watermark) fail(src Source) {
	named, ok := src.(SystemSource)
	if !ok {
		return
	}
	system := named.System()
	if system == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.pending {
		if p := &w.pending[i]; p.src == src && p.unknown.IsZero() {
			p.unknown = UnknownPosition(system)
		}
	}
}

// answer takes in the position t of p's source. It covers what was unknown before it was asked for, too, unless it is that of
// what was read.
func (w *Watermark) answer(p pendingWrites, t Token, unknown Tokens) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = slices.DeleteFunc(w.pending, func(now pendingWrites) bool { return now.src == p.src && now.at == p.at })
	if _, only := p.src.(readSource); only {
		w.reach(t)
		return
	}
	w.written = raise(w.written, t)
	w.drop(unknown.For(t.System))
}

// Settle replaces unknown, an unknown Token that Written returned, by t, a position of the same system that was asked
// for after that. When something was noted there meanwhile, unknown has given way to another Token, and that stays.
func (w *Watermark) Settle(unknown, t Token) {
	if w == nil || !unknown.Unknown() || t.Unknown() || t.System != unknown.System {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.drop(unknown) {
		w.written = raise(w.written, t)
	}
}

func (w *Watermark) drop(unknown Token) bool {
	i := slices.Index(w.unknown, unknown)
	if i < 0 {
		return false
	}
	w.unknown = slices.Delete(w.unknown, i, i+1)
	return true
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
			// What was read at an unknown position may be of any age.
			if t.Unknown() || !have.Unknown() && have.later(t) == have {
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
