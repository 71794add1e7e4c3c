package protobuf_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/cache/protobuf"
)

var _ cache.Codec = protobuf.Codec{}

func TestRoundTrip(t *testing.T) {
	want, err := structpb.NewStruct(map[string]any{"name": "Ada", "scores": []any{1.0, 2.5}, "big": "9007199254740993"})
	if err != nil {
		t.Fatal(err)
	}
	data, err := protobuf.Codec{}.Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	var got *structpb.Struct
	if err := (protobuf.Codec{}).Decode(data, &got); err != nil || !proto.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestEqualMessagesHaveEqualBytes(t *testing.T) {
	fields := map[string]any{}
	for i := range 20 {
		fields[fmt.Sprint(i)] = i
	}
	m, err := structpb.NewStruct(fields)
	if err != nil {
		t.Fatal(err)
	}
	first, err := protobuf.Codec{}.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if next, err := (protobuf.Codec{}).Encode(m); err != nil || !bytes.Equal(first, next) {
			t.Fatalf("one message has two encodings, %v", err)
		}
	}
}

func TestWhatIsNoMessage(t *testing.T) {
	if _, err := (protobuf.Codec{}).Encode("text"); err == nil {
		t.Error("encoded a string")
	}
	if _, err := (protobuf.Codec{}).Encode((*durationpb.Duration)(nil)); err == nil {
		t.Error("encoded nil")
	}
	var text string
	var pointer *string
	var message *durationpb.Duration
	for _, v := range []any{text, &text, &pointer, nil, (**durationpb.Duration)(nil)} {
		if err := (protobuf.Codec{}).Decode(nil, v); err == nil {
			t.Errorf("decoded into %T", v)
		}
	}
	if err := (protobuf.Codec{}).Decode([]byte{0xff}, &message); err == nil || message != nil {
		t.Errorf("decoded rubbish: %v, %v", message, err)
	}
}

func Example() {
	store, err := cache.NewLocal(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	timeouts := cache.Of[*durationpb.Duration](store, "timeout", cache.WithCodec(protobuf.Codec{}), cache.InProcess(cache.Local{}))
	d, err := timeouts.Load(context.Background(), "login", func(context.Context, string) (*durationpb.Duration, error) {
		return &durationpb.Duration{Seconds: 30}, nil
	})
	fmt.Println(d.AsDuration(), err)
	// Output: 30s <nil>
}
