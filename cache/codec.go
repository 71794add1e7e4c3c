package cache

import (
	"encoding/json"
	"fmt"
)

// Codec turns values into bytes and back. It must be safe for concurrent use, and must not keep or change the bytes
// that it is given.
type Codec interface {
	// ID is written with each value, so that a value of another codec is a miss. Numbers below 64 are this package's.
	ID() byte
	// Encode returns the bytes of v. Options.Verify takes two values for equal when their bytes are, or when what is decoded
	// from them is, by reflect.DeepEqual.
	Encode(v any) ([]byte, error)
	// Decode fills what v points to.
	Decode(data []byte, v any) error
}

// JSON is the codec of views that name no other.
type JSON struct{}

// ID implements Codec.
func (JSON) ID() byte { return 1 }

// Encode implements Codec.
func (JSON) Encode(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("cache: encode as JSON, give the view a codec for its type: %w", err)
	}
	return data, nil
}

// Decode implements Codec.
func (JSON) Decode(data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("cache: decode JSON: %w", err)
	}
	return nil
}
