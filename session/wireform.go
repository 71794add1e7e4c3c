package session

import (
	"math"
	"math/bits"
	"time"
)

// The forms of encoding/gob: its documentation says how each is written.

// The ids of the basic types, which are the same everywhere.
const (
	gobBool, gobInt, gobFloat, gobBytes, gobString = 1, 2, 4, 5, 6
)

// reader takes forms off its front. Once one was odd, all are.
type reader struct {
	b   string
	odd bool
}

func (r *reader) uint() uint64 {
	if r.odd || len(r.b) == 0 {
		r.odd = true
		return 0
	}
	first := r.b[0]
	if first <= 0x7f {
		r.b = r.b[1:]
		return uint64(first)
	}
	n := -int(int8(first))
	if n > 8 || len(r.b) < 1+n {
		r.odd = true
		return 0
	}
	var v uint64
	for i := 1; i <= n; i++ {
		v = v<<8 | uint64(r.b[i])
	}
	r.b = r.b[1+n:]
	return v
}

func (r *reader) int() int64 {
	u := r.uint()
	if u&1 != 0 {
		return ^int64(u >> 1)
	}
	return int64(u >> 1)
}

func (r *reader) bytes() (out string) {
	n := r.uint()
	if r.odd || n > uint64(len(r.b)) {
		r.odd = true
		return out
	}
	out, r.b = r.b[:n], r.b[n:]
	return out
}

// value reads a key and its value: the name of its type, and what encoding/gob makes of it. The name of nil is empty.
func (r *reader) value() (key, name, body string) {
	key, name = r.bytes(), r.bytes()
	if len(name) == 0 {
		return key, name, body
	}
	if r.int() <= 0 {
		r.odd = true // the definition of a type
	}
	return key, name, r.bytes()
}

// instant reads a time in UTC, as scs stores deadlines, without the copy that UnmarshalBinary needs: its version, the seconds since
// the year 1, the nanoseconds, and -1 for UTC.
func instant(raw string) (t time.Time, ok bool) {
	const version, size, seconds = 1, 15, 62_135_596_800 // from the year 1 to 1970
	if len(raw) != size || raw[0] != version || raw[13:] != "\xff\xff" {
		return t, false
	}
	var sec, nsec int64
	for i := 1; i < 9; i++ {
		sec = sec<<8 | int64(raw[i])
	}
	for i := 9; i < 13; i++ {
		nsec = nsec<<8 | int64(raw[i])
	}
	return time.Unix(sec-seconds, nsec).UTC(), nsec < 1e9
}

// lazy is a session whose values are decoded when they are asked for.
type lazy struct {
	deadline time.Time
	count    uint64
	text     string // keys and values, one after the other
}

// get decodes one value, nil if there is none. It is not ok when the value is of a type that only encoding/gob knows.
func (l *lazy) get(key string) (v any, ok bool) {
	r := reader{b: l.text}
	ok = true
	for range l.count {
		if k, name, body := r.value(); k == key {
			v, ok = basic(name, body)
		}
	}
	return v, ok
}

// string is get for a string. It is not ok either when the value is none.
func (l *lazy) string(key string) (s string, ok bool) {
	r := reader{b: l.text}
	ok = true
	for range l.count {
		if k, name, body := r.value(); k == key {
			v := reader{b: body}
			zero := v.uint()
			s = v.bytes()
			ok = name == "string" && zero == 0 && !v.odd && len(v.b) == 0
		}
	}
	return s, ok
}

func (l *lazy) all() (map[string]any, bool) {
	values := make(map[string]any, l.count)
	r := reader{b: l.text}
	for range l.count {
		key, name, body := r.value()
		v, ok := basic(name, body)
		if !ok {
			return nil, false
		}
		values[key] = v
	}
	return values, true
}

func basic(name, body string) (v any, ok bool) {
	if name == "" {
		return nil, true
	}
	r := reader{b: body}
	if r.uint() != 0 {
		return nil, false
	}
	switch name {
	case "string":
		v = r.bytes()
	case "[]uint8":
		v = []byte(r.bytes())
	case "bool":
		u := r.uint()
		v, r.odd = u == 1, r.odd || u > 1
	case "int":
		i := r.int()
		v, r.odd = int(i), r.odd || int64(int(i)) != i
	case "int64":
		v = r.int()
	case "int32":
		i := r.int()
		v, r.odd = int32(i), r.odd || int64(int32(i)) != i
	case "float64":
		v = math.Float64frombits(bits.ReverseBytes64(r.uint()))
	default:
		return nil, false
	}
	return v, !r.odd && len(r.b) == 0
}

// writer appends forms.
type writer struct{ b []byte }

func (w *writer) uint(v uint64) {
	if v <= 0x7f {
		w.b = append(w.b, byte(v))
		return
	}
	n := (bits.Len64(v) + 7) / 8
	w.b = append(w.b, byte(-n))
	for i := n - 1; i >= 0; i-- {
		w.b = append(w.b, byte(v>>(8*i)))
	}
}

func (w *writer) int(v int64) { w.uint(zigzag(v)) }

func (w *writer) string(s string) {
	w.uint(uint64(len(s)))
	w.b = append(w.b, s...)
}

// A value in an interface is written as its type's name and id, the length of the rest, a zero, and itself.

func (w *writer) text(name string, id int64, s string) {
	w.string(name)
	w.int(id)
	w.uint(uint64(1 + sizeOf(uint64(len(s))) + len(s)))
	w.uint(0)
	w.string(s)
}

func (w *writer) number(name string, id int64, v uint64) {
	w.string(name)
	w.int(id)
	w.uint(uint64(1 + sizeOf(v)))
	w.uint(0)
	w.uint(v)
}

func sizeOf(v uint64) int {
	if v <= 0x7f {
		return 1
	}
	return 1 + (bits.Len64(v)+7)/8
}

// value reports whether v is of a basic type; others are not written.
func (w *writer) value(v any) bool {
	switch v := v.(type) {
	case nil:
		w.uint(0)
	case string:
		w.text("string", gobString, v)
	case []byte:
		w.text("[]uint8", gobBytes, string(v))
	case bool:
		n := uint64(0)
		if v {
			n = 1
		}
		w.number("bool", gobBool, n)
	case int:
		w.number("int", gobInt, zigzag(int64(v)))
	case int64:
		w.number("int64", gobInt, zigzag(v))
	case int32:
		w.number("int32", gobInt, zigzag(int64(v)))
	case float64:
		w.number("float64", gobFloat, bits.ReverseBytes64(math.Float64bits(v)))
	default:
		return false
	}
	return true
}

func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }
