package msgpack_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/cache/msgpack"
)

var _ cache.Codec = msgpack.Codec{}

type lead struct {
	ID    int64
	Name  string `msgpack:"n"`
	At    time.Time
	Extra map[string]any
}

// Numbers beyond what a float64 holds come back as they were, also behind any.
func TestRoundTrip(t *testing.T) {
	want := lead{1<<53 + 1, "Ada", time.Unix(1700000000, 5).UTC(), map[string]any{"big": int64(1<<53 + 1)}}
	data, err := msgpack.Codec{}.Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	var got lead
	if err := (msgpack.Codec{}).Decode(data, &got); err != nil {
		t.Fatal(err)
	}
	got.At = got.At.UTC()
	if !cmp.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
	if _, err := (msgpack.Codec{}).Encode(func() {}); err == nil {
		t.Error("encoded a function")
	}
	if err := (msgpack.Codec{}).Decode([]byte{0xc1}, &got); err == nil {
		t.Error("decoded rubbish")
	}
}

func Example() {
	store, err := cache.NewLocal(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	scores := cache.Of[map[string]int64](store, "score", cache.WithCodec(msgpack.Codec{}), cache.InProcess(cache.Local{}))
	s, err := scores.Load(context.Background(), "1", func(context.Context, string) (map[string]int64, error) {
		return map[string]int64{"q3": 1<<53 + 1}, nil
	})
	fmt.Println(s["q3"], err)
	// Output: 9007199254740993 <nil>
}
