package cache

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

const (
	// compressOver is the size from which values are compressed if the view does not say.
	compressOver = 1 << 10
	// worthwhile is the share of its size that a compressed value may have at most, in per cent.
	worthwhile = 88
)

// CompressOver compresses (zstd) encoded values that have more bytes than n, when that makes them at least an eighth
// smaller. Negative never compresses. Without it n is 1024.
func CompressOver(n int) ViewOption { return func(o *viewOptions) { o.compressOver = n } }

var (
	encoder, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	decoder, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(64<<20), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
)

// compress returns what to store of a payload, and notes in h what it was.
func (v *viewState) compress(h *header, payload []byte) []byte {
	if v.opts.compressOver < 0 || len(payload) <= v.opts.compressOver {
		return payload
	}
	packed := encoder.EncodeAll(payload, make([]byte, 0, len(payload)))
	if len(packed)*100 > len(payload)*worthwhile {
		return payload
	}
	h.plain = uint32(len(payload))
	return packed
}

// unpack turns a hit into a value. The header's size was checked before, so no value decompresses into more than is
// allowed.
func (v *viewState) unpack(e *entry, value any) error {
	payload := e.payload
	if e.header.plain > 0 {
		plain, err := decoder.DecodeAll(payload, make([]byte, 0, e.header.plain))
		if err != nil {
			return fmt.Errorf("cache: decompress: %w", err)
		}
		if len(plain) != int(e.header.plain) {
			return fmt.Errorf("cache: decompress: %d bytes came out where %d were stored", len(plain), e.header.plain)
		}
		payload = plain
	}
	return v.decode(payload, value)
}
