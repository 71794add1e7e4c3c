package cache

import (
	"encoding/json"
	"fmt"
	"runtime/debug"
)

// Codec turns values into bytes and back. It must be safe for concurrent use, and must not keep or change the bytes
// that it is given. Its panic counts as its error.
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

// encode and decode are the codec's, whose panics are errors.
func (v *viewState) encode(value any) (payload []byte, err error) {
	defer caught("codec", &err)
	return v.opts.codec.Encode(value)
}

func (v *viewState) decode(payload []byte, value any) (err error) {
	defer caught("codec", &err)
	return v.opts.codec.Decode(payload, value)
}

// caught makes an error of the panic of what a view was given: nobody else may be there to recover from it.
func caught(what string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("cache: the %s panicked, fix it: %v\n%s", what, p, debug.Stack())
	}
}
