package cache

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/scaleaware/scaleaware"
)

// Every value in Redis begins with this header, big-endian, at offsets that the scripts know:
//
//	 0 magic, version, kind, flags, codec, number of as-of tokens (one byte each)
//	 6 length of the whole header (2)
//	 8 generation: the fill's owner (8)
//	16 start of the fill by the node's clock, microseconds (8)
//	24 soft expiry, Unix milliseconds, 0 for none (8)
//	32 hard expiry by the node's clock, Unix milliseconds: when the entry ends without a TTL extension; of a lease, when
//	   its unknown as-of tokens do (8)
//	40 schema of the Go type (8)
//	48 as-of tokens: system (8), timeline (4), position (8) each
//	   seen tokens, with the flag for them: their number (1), then each as above
//
// then whatever a later version adds before the header's end, and the payload. A reader that meets a flag that it does
// not know treats the value as a miss: additions that must be understood take a flag.
const (
	wireMagic   = 0xCA
	wireVersion = 1
	headerSize  = 48
	tokenSize   = 20
	maxTokens   = 4
	flagSeen    = 1
	knownFlags  = flagSeen
)

// kind says what stands in an entry's place.
type kind byte

const (
	kindValue    kind = 'V'
	kindNegative kind = 'N' // the origin said that there is no such value
	// A fill may land here. Its as-of tokens are the least that the fill must have; only here they may be unknown, beside
	// known ones of the same database.
	kindLease kind = 'L'
)

// generation is the identity of one lease. It is random, because an identity that is used twice lets a fill from
// before a delete land after it.
type generation uint64

type header struct {
	kind   kind
	codec  byte
	gen    generation
	start  uint64
	soft   int64
	hard   int64
	schema uint64
	asOf   scaleaware.Tokens // the value is no older
	seen   scaleaware.Tokens // nor younger; empty where nobody asked for reads to be monotonic
}

var errWire = errors.New("cache: value is not of a form that this version reads")

// appendHeader writes h. It keeps at most maxTokens tokens of a kind, which is all that a watermark holds.
func appendHeader(b []byte, h header) []byte {
	asOf, seen := h.asOf[:min(len(h.asOf), maxTokens)], h.seen[:min(len(h.seen), maxTokens)]
	size, flags := headerSize+tokenSize*len(asOf), byte(0)
	if len(seen) > 0 {
		size, flags = size+1+tokenSize*len(seen), flagSeen
	}
	b = append(b, wireMagic, wireVersion, byte(h.kind), flags, h.codec, byte(len(asOf)))
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = binary.BigEndian.AppendUint64(b, uint64(h.gen))
	b = binary.BigEndian.AppendUint64(b, h.start)
	b = binary.BigEndian.AppendUint64(b, uint64(h.soft))
	b = binary.BigEndian.AppendUint64(b, uint64(h.hard))
	b = binary.BigEndian.AppendUint64(b, h.schema)
	b = appendTokens(b, asOf)
	if len(seen) > 0 {
		b = appendTokens(append(b, byte(len(seen))), seen)
	}
	return b
}

func appendTokens(b []byte, tokens scaleaware.Tokens) []byte {
	for _, t := range tokens {
		b = binary.BigEndian.AppendUint64(b, t.System)
		b = binary.BigEndian.AppendUint32(b, t.Timeline)
		b = binary.BigEndian.AppendUint64(b, uint64(t.LSN))
	}
	return b
}

// parseHeader splits raw into its header and payload. The payload shares raw's memory.
func parseHeader(raw []byte) (header, []byte, error) {
	if len(raw) < headerSize || raw[0] != wireMagic || raw[1] != wireVersion || raw[3]&^knownFlags != 0 {
		return header{}, nil, errWire
	}
	h := header{kind: kind(raw[2]), codec: raw[4]}
	size := int(binary.BigEndian.Uint16(raw[6:]))
	if size < headerSize || size > len(raw) {
		return header{}, nil, errWire
	}
	if h.kind != kindValue && h.kind != kindNegative && h.kind != kindLease {
		return header{}, nil, errWire
	}
	h.gen = generation(binary.BigEndian.Uint64(raw[8:]))
	h.start = binary.BigEndian.Uint64(raw[16:])
	h.soft = int64(binary.BigEndian.Uint64(raw[24:]))
	h.hard = int64(binary.BigEndian.Uint64(raw[32:]))
	h.schema = binary.BigEndian.Uint64(raw[40:])
	var ok bool
	rest := raw[headerSize:size]
	if h.asOf, rest, ok = parseTokens(rest, raw[5], h.kind == kindLease); !ok {
		return header{}, nil, errWire
	}
	if raw[3]&flagSeen != 0 {
		if len(rest) == 0 {
			return header{}, nil, errWire
		}
		if h.seen, _, ok = parseTokens(rest[1:], rest[0], false); !ok || len(h.seen) == 0 {
			return header{}, nil, errWire
		}
	}
	return h, raw[size:], nil
}

func parseTokens(raw []byte, n byte, unknown bool) (tokens scaleaware.Tokens, rest []byte, ok bool) {
	if n > maxTokens || len(raw) < int(n)*tokenSize {
		return nil, nil, false
	}
	for ; n > 0; n, raw = n-1, raw[tokenSize:] {
		t := scaleaware.Token{
			System:   binary.BigEndian.Uint64(raw),
			Timeline: binary.BigEndian.Uint32(raw[8:]),
			LSN:      scaleaware.LSN(binary.BigEndian.Uint64(raw[12:])),
		}
		twice := func(have scaleaware.Token) bool { return have.System == t.System && have.Unknown() == t.Unknown() }
		if t.System == 0 || t.Unknown() && !unknown || slices.ContainsFunc(tokens, twice) {
			return nil, nil, false
		}
		tokens = append(tokens, t)
	}
	return tokens, raw, true
}
