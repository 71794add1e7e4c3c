package protobuf

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"
)

// Codec is a cache.Codec for messages. The zero value is ready for use.
type Codec struct{}

// ID implements cache.Codec.
func (Codec) ID() byte { return 2 }

// Encode implements cache.Codec. It returns an error for what is no message. Equal messages have equal bytes.
func (Codec) Encode(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok || !m.ProtoReflect().IsValid() {
		return nil, fmt.Errorf("protobuf: %T is no message that can be stored, give the view a pointer to a generated type, not nil", v)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("protobuf: encode %T: %w", v, err)
	}
	return data, nil
}

// Decode implements cache.Codec. v points to a pointer to a message, which gets a new one.
func (Codec) Decode(data []byte, v any) error {
	to := reflect.ValueOf(v)
	if to.Kind() != reflect.Pointer || to.IsNil() || to.Elem().Kind() != reflect.Pointer {
		return fmt.Errorf("protobuf: decode into %T, want a pointer to a pointer to a message", v)
	}
	made := reflect.New(to.Elem().Type().Elem())
	m, ok := made.Interface().(proto.Message)
	if !ok {
		return fmt.Errorf("protobuf: %v is no message", made.Type())
	}
	if err := proto.Unmarshal(data, m); err != nil {
		return fmt.Errorf("protobuf: decode %T: %w", m, err)
	}
	to.Elem().Set(made)
	return nil
}
