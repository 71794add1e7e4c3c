package cache

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// What is cut short, or says that it has more positions than there can be, is removed like any other entry, and asks for nothing.
func TestTruncatedEntriesAreRemoved(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	v := Of[lead](s, "lead")
	if err := v.Delete(wrote(ctx, at(1)), "other"); err != nil { // sweeps look for what it asks for
		t.Fatal(err)
	}
	entry := func(k kind, tokens byte, size int) []byte {
		raw := appendHeader(nil, header{kind: k, gen: 1, start: uint64(time.Now().UnixMicro())})
		raw[5] = tokens
		return append(raw, slices.Repeat([]byte{1}, size-len(raw))...)
	}
	for name, raw := range map[string][]byte{
		"a value":         entry(kindValue, 1, headerSize),
		"a lease":         entry(kindLease, 1, headerSize),
		"half a position": entry(kindValue, 2, headerSize+tokenSize+7),
		"five positions":  entry(kindValue, maxTokens+1, headerSize+(maxTokens+1)*tokenSize),
	} {
		for how, remove := range map[string]func() error{
			"delete":        func() error { return v.Delete(ctx, "1") },
			"delete, wrote": func() error { return v.Delete(wrote(ctx, at(9)), "1") },
			"pattern":       func() error { _, err := s.Invalidate(context.WithoutCancel(ctx), "lead:1"); return err },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				if err := s.rdb.Set(ctx, v.prefix+"1", raw, time.Minute).Err(); err != nil {
					t.Fatal(err)
				}
				if err := remove(); err != nil {
					t.Error(err)
				}
				left, err := s.rdb.Get(ctx, v.prefix+"1").Bytes()
				if how != "delete, wrote" {
					if !errors.Is(err, redis.Nil) {
						t.Errorf("it left %x, %v", left, err)
					}
					return
				}
				if h, _, err := parseHeader(left); err != nil || h.kind != kindLease || len(h.asOf) != 1 || h.asOf[0] != at(9) {
					t.Errorf("it left %+v, %v", h, err)
				}
			})
		}
	}
}
