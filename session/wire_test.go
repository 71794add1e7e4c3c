package session

import (
	"encoding/gob"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
)

type custom struct{ A, B int }

func samples() []map[string]any {
	gob.Register(custom{})
	gob.Register(time.Time{})
	return []map[string]any{
		{},
		{"s": "", "t": "text\x00\xff", "long": strings.Repeat("x", 70_000)},
		{"i": 0, "j": -1, "k": math.MaxInt, "l": math.MinInt, "m": int64(-5), "n": int32(math.MinInt32)},
		{"t": true, "f": false, "pi": math.Pi, "zero": 0.0, "inf": math.Inf(-1), "b": []byte{}, "c": []byte{0, 255}},
		{"nil": nil, "s": "v"},
		{"custom": custom{1, 2}, "s": "v"},
		{"time": time.Unix(1, 2).UTC(), "s": "v"},
		{"list": []string{"a", "b"}, "n": 3},
		{principalKey: "ada", tokensKey: "1:1:0/9", generationKey: "A!5"},
	}
}

// What we write, scs reads, and the other way round.
func TestWireIsThatOfSCS(t *testing.T) {
	gob.Register([]string{})
	w := newWire()
	if w.own == nil {
		t.Fatal("encoding/gob has changed: nothing is read fast any more")
	}
	deadline := time.Now().Add(time.Hour).UTC().Round(0)
	for i, values := range samples() {
		ours, err := w.Encode(deadline, values)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := scs.GobCodec{}.Encode(deadline, values)
		if err != nil {
			t.Fatal(err)
		}
		if len(ours) != len(theirs) {
			t.Errorf("%d: %d bytes, scs has %d", i, len(ours), len(theirs))
		}
		for name, b := range map[string][]byte{"ours": ours, "theirs": theirs} {
			for reader, codec := range map[string]scs.Codec{"scs": scs.GobCodec{}, "we": w, "new": newWire()} {
				d, got, err := codec.Decode(b)
				if err != nil || !d.Equal(deadline) || !same(got, values) {
					t.Errorf("%d: %s as %s read: %v, %v, %v", i, name, reader, d, got, err)
				}
			}
			v, err := viewOf(tolerant{w}, string(b))
			if err != nil || !v.deadline.Equal(deadline) {
				t.Errorf("%d: view: %v, %v", i, v.deadline, err)
			}
			for k, want := range values {
				if got := v.get(k); !reflect.DeepEqual(got, want) && !same(map[string]any{"": got}, map[string]any{"": want}) {
					t.Errorf("%d: view of %s is %#v, want %#v", i, k, got, want)
				}
				text, _ := want.(string)
				if got := v.text(k); got != text {
					t.Errorf("%d: text of %s is %q, want %q", i, k, got, text)
				}
			}
			if v.get("absent") != nil || v.text("absent") != "" {
				t.Error("something absent is there")
			}
		}
	}
}

// same takes empty and nil bytes for the same, as gob does.
func same(a, b map[string]any) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		x, ok := v.([]byte)
		y, ok2 := b[k].([]byte)
		if ok && ok2 && len(x) == 0 && len(y) == 0 {
			continue
		}
		if !reflect.DeepEqual(v, b[k]) {
			return false
		}
	}
	return true
}

// Whatever the bytes: what is read fast is what encoding/gob reads.
func FuzzWire(f *testing.F) {
	gob.Register([]string{})
	w := newWire()
	for _, values := range samples() {
		b, err := scs.GobCodec{}.Encode(time.Now(), values)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, ok := w.open(string(b))
		if !ok {
			return
		}
		fast, ok := l.all()
		if !ok {
			return
		}
		deadline, values, err := scs.GobCodec{}.Decode(b)
		if err != nil {
			return // encoding/gob is stricter about what follows
		}
		if !deadline.Equal(l.deadline) || !same(fast, values) && len(values) == int(l.count) && !hasNaN(values) {
			t.Errorf("read as %v %v, encoding/gob reads %v %v", l.deadline, fast, deadline, values)
		}
	})
}

func hasNaN(values map[string]any) bool {
	for _, v := range values {
		if f, ok := v.(float64); ok && math.IsNaN(f) {
			return true
		}
	}
	return false
}

func benchmarkValues() map[string]any {
	values := map[string]any{principalKey: "user-4711", generationKey: strings.Repeat("G", 26), deviceKey: strings.Repeat("D", 26)}
	for _, k := range []string{"language", "theme", "csrf", "cart", "flash", "zone"} {
		values[k] = "a value of " + k
	}
	values["count"], values["admin"] = 42, false
	return values
}

func BenchmarkCodec(b *testing.B) {
	w, deadline, values := newWire(), time.Now().Add(time.Hour), benchmarkValues()
	data, err := w.Encode(deadline, values)
	if err != nil {
		b.Fatal(err)
	}
	for name, codec := range map[string]scs.Codec{"ours": w, "gob": scs.GobCodec{}} {
		b.Run("decode "+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = codec.Decode(data)
			}
		})
		b.Run("encode "+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = codec.Encode(deadline, values)
			}
		})
	}
	b.Run("one value", func(b *testing.B) {
		text := string(data)
		b.ReportAllocs()
		for b.Loop() {
			v, _ := viewOf(tolerant{w}, text)
			_ = v.text("theme")
		}
	})
}

func TestInstant(t *testing.T) {
	for _, want := range []time.Time{time.Unix(0, 0), time.Now(), time.Now().Add(24 * time.Hour).Truncate(time.Second), time.Date(1, 1, 1, 0, 0, 0, 999_999_999, time.UTC), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)} {
		b, err := want.UTC().MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		got, ok := instant(string(b))
		if !ok || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%v: %v, %v", want, got, ok)
		}
		b[12], b[9] = 0xff, 0xff
		if got, ok := instant(string(b)); ok {
			t.Errorf("too many nanoseconds: %v", got)
		}
	}
	b, err := time.Now().In(time.FixedZone("", 3600)).MarshalBinary()
	if _, ok := instant(string(b)); ok || err != nil {
		t.Errorf("a time elsewhere was read as UTC, %v", err)
	}
}
