package session

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/alexedwards/scs/v2"
)

// wire reads and writes what scs's GobCodec does, without making a gob encoder and decoder for each session: those compile
// their machines anew each time, which costs more than all the rest of a request.
//
// A stream of scs's is a preamble of type definitions, then one message: the type's id, the deadline, and the values.
// Preambles differ by process. One that the real decoder has accepted is remembered, and only what follows such a preamble
// is read here. Values of other types than the basic ones are left to the real encoder and decoder, as is everything odd.
type wire struct {
	known atomic.Pointer[[]preamble]
	own   *preamble // nil: everything is left to scs
}

// preamble is the type definitions of one process, with the id of scs's struct.
type preamble struct {
	text string
	id   int64
}

// maxPreambles bounds what is remembered: one of each build that writes is enough.
const maxPreambles = 16

func newWire() *wire {
	w := new(wire)
	if b, err := (scs.GobCodec{}).Encode(time.Unix(0, 0), map[string]any{}); err == nil {
		if p, _, ok := cut(string(b)); ok {
			w.learn(p)
			w.own = &(*w.known.Load())[0]
		}
	}
	return w
}

// cut takes the preamble off and returns the message, behind its id.
func cut(b string) (p preamble, message string, ok bool) {
	r := reader{b: b}
	for !r.odd {
		before := len(b) - len(r.b)
		m := reader{b: r.bytes()}
		if id := m.int(); id > 0 && !r.odd && !m.odd {
			return preamble{b[:before], id}, m.b, true
		}
		r.odd = r.odd || m.odd
	}
	return p, "", false
}

func (w *wire) knows(p preamble) bool {
	all := w.known.Load()
	if all == nil {
		return false
	}
	for _, k := range *all {
		if k == p {
			return true
		}
	}
	return false
}

func (w *wire) learn(p preamble) {
	for {
		was := w.known.Load()
		var all []preamble
		if was != nil {
			all = append(all, *was...)
		}
		if len(all) == maxPreambles {
			all = append(all[:1], all[2:]...) // our own stays
		}
		all = append(all, preamble{strings.Clone(p.text), p.id})
		if w.known.CompareAndSwap(was, &all) {
			return
		}
	}
}

// Decode implements scs.Codec.
func (w *wire) Decode(b []byte) (time.Time, map[string]any, error) {
	text := string(b)
	if l, ok := w.open(text); ok {
		if values, ok := l.all(); ok {
			return l.deadline, values, nil
		}
	}
	deadline, values, err := (scs.GobCodec{}).Decode(b)
	if err == nil {
		if p, _, ok := cut(text); ok && !w.knows(p) {
			w.learn(p)
		}
	}
	return deadline, values, err
}

// open reads as far as the values, whose form it checks. It refuses data with a preamble that is not known.
func (w *wire) open(b string) (l lazy, ok bool) {
	p, message, ok := cut(b)
	if !ok || !w.knows(p) {
		return l, false
	}
	r := reader{b: message}
	field := uint64(0)
	for {
		delta := r.uint()
		if r.odd || delta > 2 {
			return l, false
		}
		if delta == 0 {
			return l, true
		}
		switch field += delta; field {
		case 1:
			raw := r.bytes()
			if l.deadline, ok = instant(raw); !ok && (r.odd || l.deadline.UnmarshalBinary([]byte(raw)) != nil) {
				return l, false
			}
		case 2:
			l.count = r.uint()
			if l.count > uint64(len(r.b)) {
				return l, false
			}
			start := r.b
			for range l.count {
				r.value()
			}
			if r.odd {
				return l, false
			}
			l.text = start[:len(start)-len(r.b)]
		default:
			return l, false
		}
	}
}

// Encode implements scs.Codec.
func (w *wire) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	if w.own == nil {
		return scs.GobCodec{}.Encode(deadline, values)
	}
	size := 64
	for k, v := range values {
		size += len(k) + 32
		switch v := v.(type) {
		case string:
			size += len(v)
		case []byte:
			size += len(v)
		}
	}
	at, err := deadline.MarshalBinary()
	m := writer{make([]byte, 0, size)}
	m.int(w.own.id)
	m.uint(1)
	m.string(string(at))
	m.uint(1)
	m.uint(uint64(len(values)))
	for k, v := range values {
		m.string(k)
		if err != nil || !m.value(v) {
			return scs.GobCodec{}.Encode(deadline, values)
		}
	}
	m.uint(0)
	out := writer{append(make([]byte, 0, len(w.own.text)+9+len(m.b)), w.own.text...)}
	out.uint(uint64(len(m.b)))
	return append(out.b, m.b...), nil
}
