package msgpack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/cache/msgpack"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

var _ cache.Codec = msgpack.Codec{}

var server = rediscluster.NewShared(&rediscluster.Options{Nodes: 1})

func TestMain(m *testing.M) { os.Exit(server.Around(m).Run()) }

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

// What one process stores another one has from Redis, compressed or not, with numbers as they were.
func TestThroughRedis(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	rdb := redisclient.New(redisclient.Options(server.Get(t).Addrs()...))
	defer rdb.Close()
	var views [2]*cache.View[lead]
	for i := range views {
		s, err := cache.New(rdb, &cache.Options{Prefix: "msgpack:", RedisTimeout: 15 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		views[i] = cache.Of[lead](s, "lead", cache.WithCodec(msgpack.Codec{}))
	}
	here, there := views[0], views[1]
	for id, name := range map[string]string{"small": "Ada", "compressed": strings.Repeat("Ada ", 1000)} {
		want := lead{1<<53 + 1, name, time.Unix(1700000000, 5).UTC(), map[string]any{"big": int64(1<<53 + 1)}}
		if _, err := here.Load(ctx, id, func(context.Context, string) (lead, error) { return want, nil }); err != nil {
			t.Fatal(err)
		}
		bare, err := msgpack.Codec{}.Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := rdb.Get(ctx, "msgpack:lead:"+id).Bytes()
		if whole := bytes.HasSuffix(raw, bare); err != nil || whole != (id == "small") {
			t.Errorf("%s: Redis has %d bytes of a value of %d, %v", id, len(raw), len(bare), err)
		}
		same := func(call string, got lead, err error) {
			t.Helper()
			got.At = got.At.UTC()
			if err != nil || !cmp.Equal(got, want) {
				t.Errorf("%s: %s: %v, %s", id, call, err, cmp.Diff(want, got))
			}
		}
		got, err := there.Get(ctx, id)
		same("Get", got, err)
		got, err = there.Load(ctx, id, func(context.Context, string) (lead, error) { return lead{}, errors.New("it is in Redis") })
		same("Load", got, err)
		found, err := there.GetMany(ctx, []string{id, "nothing"})
		same("GetMany", found[id], err)
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
