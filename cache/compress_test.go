package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestCompression(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		noise := make([]byte, 20_000)
		rand.Read(noise)
		for _, c := range []struct {
			name    string
			value   string
			options []ViewOption
			packed  bool
		}{
			{"text", strings.Repeat("all leads are alike ", 1000), nil, true},
			{"small", strings.Repeat("a", 900), nil, false},
			{"noise", string(fmt.Appendf(nil, "%x", noise))[:1100], []ViewOption{CompressOver(2000)}, false},
			{"off", strings.Repeat("a", 20_000), []ViewOption{CompressOver(-1)}, false},
		} {
			v := Of[string](s, c.name, c.options...)
			got, err := v.Load(ctx, "1", func(context.Context, string) (string, error) { return c.value, nil })
			if err != nil || got != c.value {
				t.Fatal(err)
			}
			if got, err = v.Get(ctx, "1"); err != nil || got != c.value {
				t.Errorf("%s: came back otherwise: %v", c.name, err)
			}
			raw, err := rdb.Get(ctx, v.prefix+"1").Bytes()
			if err != nil {
				t.Fatal(err)
			}
			h, payload, err := parseHeader(raw)
			if err != nil || (h.plain > 0) != c.packed || c.packed && len(payload) > len(c.value)/8 {
				t.Errorf("%s: %d bytes stored of %d, header %+v, %v", c.name, len(payload), len(c.value), h, err)
			}
		}
	})
}

// What does not pay is stored as it is, and what lies about its size is a miss.
func TestCompressionThatDoesNotPay(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), func(o *Options) { o.MaxValueBytes = 100_000 })
	v := Of[[]byte](s, "bytes", WithCodec(rawCodec{}))
	noise := make([]byte, 50_000)
	rand.Read(noise)
	h := header{}
	if got := v.compress(&h, noise); len(got) != len(noise) || h.plain != 0 {
		t.Errorf("noise: %d bytes of %d", len(got), len(noise))
	}
	zeros := make([]byte, 90_000)
	packed := v.compress(&h, zeros)
	if len(packed) > 1000 || h.plain != 90_000 {
		t.Fatalf("zeros: %d bytes, %+v", len(packed), h)
	}
	for name, plain := range map[string]uint32{"less than it is": 1000, "more than it is": 95_000, "more than is allowed": 1 << 30, "rubbish": 90_000} {
		h.kind, h.codec, h.schema, h.plain = kindValue, v.opts.codec.ID(), v.schema, plain
		payload := packed
		if name == "rubbish" {
			payload = []byte("no zstd")
		}
		if err := s.rdb.Set(ctx, v.prefix+"1", append(appendHeader(nil, h), payload...), 0).Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type rawCodec struct{}

func (rawCodec) ID() byte                     { return 200 }
func (rawCodec) Encode(v any) ([]byte, error) { return v.([]byte), nil }
func (rawCodec) Decode(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
