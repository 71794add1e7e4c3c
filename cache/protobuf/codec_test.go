package protobuf_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/cache/protobuf"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

var _ cache.Codec = protobuf.Codec{}

var server = rediscluster.NewShared(&rediscluster.Options{Nodes: 1})

func TestMain(m *testing.M) { goleak.VerifyTestMain(server.Around(m)) }

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

// What one process stores another one has from Redis, compressed or not, and each of its callers a message of its own.
func TestThroughRedis(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	rdb := redisclient.New(redisclient.Options(server.Get(t).Addrs()...))
	defer rdb.Close()
	var views [2]*cache.View[*structpb.Struct]
	for i := range views {
		s, err := cache.New(rdb, &cache.Options{Prefix: "protobuf:", RedisTimeout: 15 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		views[i] = cache.Of[*structpb.Struct](s, "profile", cache.WithCodec(protobuf.Codec{}))
	}
	here, there := views[0], views[1]
	for id, name := range map[string]string{"small": "Ada", "compressed": strings.Repeat("Ada ", 1000)} {
		want, err := structpb.NewStruct(map[string]any{"name": name, "scores": []any{1.0, 2.5}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := here.Load(ctx, id, func(context.Context, string) (*structpb.Struct, error) { return want, nil }); err != nil {
			t.Fatal(err)
		}
		bare, err := protobuf.Codec{}.Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := rdb.Get(ctx, "protobuf:profile:"+id).Bytes()
		if whole := bytes.HasSuffix(raw, bare); err != nil || whole != (id == "small") {
			t.Errorf("%s: Redis has %d bytes of a message of %d, %v", id, len(raw), len(bare), err)
		}
		first, err := there.Get(ctx, id)
		if err != nil || !proto.Equal(first, want) {
			t.Errorf("%s: Get: %v, %v", id, first, err)
		}
		second, err := there.Load(ctx, id, func(context.Context, string) (*structpb.Struct, error) {
			return nil, errors.New("it is in Redis")
		})
		if err != nil || !proto.Equal(second, want) || second == first {
			t.Errorf("%s: Load: %v, %v", id, second, err)
		}
		found, err := there.GetMany(ctx, []string{id, "nothing"})
		if err != nil || len(found) != 1 || !proto.Equal(found[id], want) {
			t.Errorf("%s: GetMany: %v, %v", id, found, err)
		}
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
