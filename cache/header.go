package cache

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/scaleaware/scaleaware"
)

// Every value in Redis begins with this header, big-endian, at offsets that the scripts know. Times are the node's own,
// Unix milliseconds but for the start.
//
//	 0 magic, version, kind, flags, codec, number of as-of tokens (one byte each)
//	 6 length of the whole header (2)
//	 8 generation: the fill's owner (8)
//	16 start of the fill, microseconds (8)
//	24 soft expiry: the value is stale from then on; of a lease, when its known as-of tokens end for loads of unknown age (8)
//	32 hard expiry: when the entry ends without a TTL extension; of a lease, when its unknown as-of tokens do (8)
//	40 schema of the Go type (8)
//	48 claim: until when somebody loads the value, 0 for nobody (8)
//	56 epoch: the last invalidation of many keys that the fill knew of (8)
//	64 cost of the load, microseconds; of a lease, the beginning of what whoever claims it offered as its generation (4)
//	68 length of the payload when it is decompressed, 0 when it is not compressed (4)
//	72 as-of tokens: system (8), timeline (4), position (8) each
//	   seen tokens, with the flag for them: their number (1), then each as above
//	   tags, with the flag for them: their number (1), then the hash of each (8)
//
// then whatever a later version adds before the header's end, and the payload. A reader that meets a flag that it does
// not know treats the value as a miss: additions that must be understood take a flag.
const (
	wireMagic   = 0xCA
	wireVersion = 2
	headerSize  = 72
	tokenSize   = 20
	maxTokens   = 4
	maxTags     = 16
	flagSeen    = 1
	flagTags    = 2
	knownFlags  = flagSeen | flagTags
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
	claim  int64
	epoch  epoch
	cost   uint32
	plain  uint32
	asOf   scaleaware.Tokens // the value is no older
	seen   scaleaware.Tokens // nor younger; empty where nobody asked for reads to be monotonic
	tags   []tagHash
}

var errWire = errors.New("cache: value is not of a form that this version reads")

// appendHeader writes h. It keeps at most maxTokens tokens of a kind, which is all that a watermark holds, and maxTags tags.
func appendHeader(b []byte, h header) []byte {
	asOf, seen := h.asOf[:min(len(h.asOf), maxTokens)], h.seen[:min(len(h.seen), maxTokens)]
	size, flags := headerSize+tokenSize*len(asOf), byte(0)
	if len(seen) > 0 {
		size, flags = size+1+tokenSize*len(seen), flags|flagSeen
	}
	tags := h.tags[:min(len(h.tags), maxTags)]
	if len(tags) > 0 {
		size, flags = size+1+8*len(tags), flags|flagTags
	}
	b = append(b, wireMagic, wireVersion, byte(h.kind), flags, h.codec, byte(len(asOf)))
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = binary.BigEndian.AppendUint64(b, uint64(h.gen))
	b = binary.BigEndian.AppendUint64(b, h.start)
	b = binary.BigEndian.AppendUint64(b, uint64(h.soft))
	b = binary.BigEndian.AppendUint64(b, uint64(h.hard))
	b = binary.BigEndian.AppendUint64(b, h.schema)
	b = binary.BigEndian.AppendUint64(b, uint64(h.claim))
	b = binary.BigEndian.AppendUint64(b, uint64(h.epoch))
	b = binary.BigEndian.AppendUint32(b, h.cost)
	b = binary.BigEndian.AppendUint32(b, h.plain)
	b = appendTokens(b, asOf)
	if len(seen) > 0 {
		b = appendTokens(append(b, byte(len(seen))), seen)
	}
	if len(tags) > 0 {
		b = append(b, byte(len(tags)))
		for _, tag := range tags {
			b = binary.BigEndian.AppendUint64(b, uint64(tag))
		}
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
func parseHeader(raw []byte) (h header, payload []byte, err error) {
	if payload, err = h.parse(raw); err != nil {
		return header{}, nil, err
	}
	return h, payload, nil
}

// parse is parseHeader in place. After an error h is of no use.
func (h *header) parse(raw []byte) (payload []byte, err error) {
	if len(raw) < headerSize || raw[0] != wireMagic || raw[1] != wireVersion || raw[3]&^knownFlags != 0 {
		return nil, errWire
	}
	*h = header{kind: kind(raw[2]), codec: raw[4]}
	size := int(binary.BigEndian.Uint16(raw[6:]))
	if size < headerSize || size > len(raw) {
		return nil, errWire
	}
	if h.kind != kindValue && h.kind != kindNegative && h.kind != kindLease {
		return nil, errWire
	}
	h.gen = generation(binary.BigEndian.Uint64(raw[8:]))
	h.start = binary.BigEndian.Uint64(raw[16:])
	h.soft = int64(binary.BigEndian.Uint64(raw[24:]))
	h.hard = int64(binary.BigEndian.Uint64(raw[32:]))
	h.schema = binary.BigEndian.Uint64(raw[40:])
	h.claim = int64(binary.BigEndian.Uint64(raw[48:]))
	h.epoch = epoch(binary.BigEndian.Uint64(raw[56:]))
	h.cost = binary.BigEndian.Uint32(raw[64:])
	h.plain = binary.BigEndian.Uint32(raw[68:])
	var ok bool
	rest := raw[headerSize:size]
	if h.asOf, rest, ok = parseTokens(rest, raw[5], h.kind == kindLease); !ok {
		return nil, errWire
	}
	if raw[3]&flagSeen != 0 {
		if len(rest) == 0 {
			return nil, errWire
		}
		if h.seen, rest, ok = parseTokens(rest[1:], rest[0], false); !ok || len(h.seen) == 0 {
			return nil, errWire
		}
	}
	if raw[3]&flagTags != 0 {
		if h.tags, ok = parseTags(rest); !ok {
			return nil, errWire
		}
	}
	return raw[size:], nil
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

func parseTags(raw []byte) ([]tagHash, bool) {
	if len(raw) == 0 || raw[0] == 0 || raw[0] > maxTags || len(raw) < 1+8*int(raw[0]) {
		return nil, false
	}
	tags := make([]tagHash, raw[0])
	for i := range tags {
		tags[i] = tagHash(binary.BigEndian.Uint64(raw[1+8*i:]))
	}
	return tags, true
}
