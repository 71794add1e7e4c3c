package msgpack

import (
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// Codec is a cache.Codec. The zero value is ready for use. Fields are named by their `msgpack` tags.
type Codec struct{}

// ID implements cache.Codec.
func (Codec) ID() byte { return 3 }

// Encode implements cache.Codec.
func (Codec) Encode(v any) ([]byte, error) {
	data, err := msgpack.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("msgpack: encode %T: %w", v, err)
	}
	return data, nil
}

// Decode implements cache.Codec.
func (Codec) Decode(data []byte, v any) error {
	if err := msgpack.Unmarshal(data, v); err != nil {
		return fmt.Errorf("msgpack: decode %T: %w", v, err)
	}
	return nil
}
