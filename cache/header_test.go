package cache

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scaleaware/scaleaware"
)

var sample = header{
	kind: kindValue, codec: 1, gen: 0x0102030405060708, start: 1700000000000000, soft: 5, hard: 1700000600000, schema: 9,
	claim: 1700000000500, epoch: 1700000000000001, cost: 1500, plain: 4096,
	asOf: scaleaware.Tokens{{System: 7551234567890123456, Timeline: 2, LSN: 0x0000000B1D3548}, {System: 3, Timeline: 1, LSN: 1 << 60}},
}

// Entries written by this version are read by later ones: the bytes must not change.
const golden = "ca025600010200700102030405060708" + "00060a24181e4000" + "0000000000000005" + "0000018bcfee8fc0" +
	"0000000000000009" + "0000018bcfe569f4" + "00060a24181e4001" + "000005dc" + "00001000" + "68cb5fd4d2bdbac0" + "00000002" + "000000000b1d3548" + "0000000000000003" + "00000001" + "1000000000000000"

func TestHeaderGolden(t *testing.T) {
	got := appendHeader(nil, sample)
	if hex.EncodeToString(got) != golden {
		t.Fatalf("got\n%x\nwant\n%s", got, golden)
	}
	h, payload, err := parseHeader(append(got, "payload"...))
	if err != nil || string(payload) != "payload" || !cmp.Equal(h, sample, cmp.AllowUnexported(header{})) {
		t.Fatalf("got %+v, %q, %v", h, payload, err)
	}
}

func TestHeaderGoldenOfWhatWasSeenAndTags(t *testing.T) {
	h := header{kind: kindValue, gen: 1, asOf: scaleaware.Tokens{at(5)}, seen: scaleaware.Tokens{at(7)}, tags: []tagHash{9, 1 << 63}}
	got := hex.EncodeToString(appendHeader(nil, h)[72:])
	if want := "0000000000000007" + "00000001" + "0000000000000005" + "01" + "0000000000000007" + "00000001" + "0000000000000007" + "02" + "0000000000000009" + "8000000000000000"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A later version may put more before the header's end.
func TestHeaderSkipsWhatItDoesNotKnow(t *testing.T) {
	raw := appendHeader(nil, sample)
	raw[7] += 3
	_, payload, err := parseHeader(append(raw, "newpayload"...))
	if err != nil || string(payload) != "payload" {
		t.Fatalf("got %q, %v", payload, err)
	}
}

func TestHeaderRefuses(t *testing.T) {
	good := appendHeader(nil, sample)
	change := func(at int, to byte) []byte { raw := bytes.Clone(good); raw[at] = to; return raw }
	for name, raw := range map[string][]byte{
		"empty": {}, "short": good[:headerSize-1], "tokens cut": good[:len(good)-1], "plain JSON": []byte(`{"ID":"a valid document that is long enough to be one"}`),
		"magic": change(0, 0), "version": change(1, 1), "kind": change(2, 'X'), "flag": change(3, 4), "no seen tokens": change(3, flagSeen), "no tags": change(3, flagTags),
		"too many tokens": change(5, maxTokens+1), "length below tokens": change(7, headerSize), "length beyond value": change(6, 1),
		"no timeline": change(headerSize+11, 0), "same database twice": append(bytes.Clone(good[:headerSize+tokenSize]), good[headerSize:headerSize+tokenSize]...),
	} {
		if _, _, err := parseHeader(raw); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHeaderOfWhatWasSeen(t *testing.T) {
	want := sample
	want.seen = scaleaware.Tokens{at(7), {System: 3, Timeline: 1, LSN: 9}}
	raw := appendHeader(nil, want)
	h, payload, err := parseHeader(append(bytes.Clone(raw), "payload"...))
	if err != nil || string(payload) != "payload" || !cmp.Equal(h, want, cmp.AllowUnexported(header{})) {
		t.Fatalf("got %+v, %q, %v", h, payload, err)
	}
	number := headerSize + 2*tokenSize
	for name, n := range map[string]byte{"none": 0, "too many": maxTokens + 1, "more than there are": 3} {
		bad := bytes.Clone(raw)
		bad[number] = n
		if _, _, err := parseHeader(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHeaderOfTags(t *testing.T) {
	want := sample
	want.seen, want.tags = scaleaware.Tokens{at(7)}, []tagHash{1, 1 << 63}
	raw := appendHeader(nil, want)
	h, payload, err := parseHeader(append(bytes.Clone(raw), "payload"...))
	if err != nil || string(payload) != "payload" || !cmp.Equal(h, want, cmp.AllowUnexported(header{})) {
		t.Fatalf("got %+v, %q, %v", h, payload, err)
	}
	number := len(raw) - 2*8 - 1
	for name, n := range map[string]byte{"none": 0, "too many": maxTags + 1, "more than there are": 3} {
		bad := bytes.Clone(raw)
		bad[number] = n
		if _, _, err := parseHeader(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(appendHeader(nil, sample))
	f.Add(append(appendHeader(nil, header{kind: kindLease}), 1, 2, 3))
	f.Add(appendHeader(nil, header{kind: kindLease, asOf: scaleaware.Tokens{at(5), unknownAt(77)}}))
	f.Add(append(appendHeader(nil, header{kind: kindValue, asOf: sample.asOf, seen: scaleaware.Tokens{at(7)}}), "payload"...))
	f.Add(append(appendHeader(nil, header{kind: kindValue, asOf: sample.asOf, tags: []tagHash{5}}), "payload"...))
	f.Add([]byte("\xca\x02"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, payload, err := parseHeader(raw)
		if err != nil {
			return
		}
		if len(payload) > len(raw)-headerSize {
			t.Fatalf("payload of %d bytes out of %d", len(payload), len(raw))
		}
		again, rest, err := parseHeader(append(appendHeader(nil, h), payload...))
		if err != nil || !bytes.Equal(rest, payload) || !cmp.Equal(h, again, cmp.AllowUnexported(header{})) {
			t.Fatalf("%+v came back as %+v, %v", h, again, err)
		}
	})
}

func BenchmarkParseHeader(b *testing.B) {
	raw := append(appendHeader(nil, header{kind: kindValue, codec: 1}), "payload"...)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := parseHeader(raw); err != nil {
			b.Fatal(err)
		}
	}
}
