package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Compare in one run: go test -run - -bench 'Get' ./cache. raw is the bare client reading the same bytes.
func BenchmarkGet(b *testing.B) {
	ctx := context.Background()
	rdb := client(b, six.Get(b))
	leads := Of[lead](newStore(b, rdb, nil), "lead")
	ids := make([]string, 100)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
		if err := leads.Set(ctx, ids[i], lead{ID: ids[i], Score: int64(i)}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("raw", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if err := rdb.Get(ctx, leads.prefix+ids[i%100]).Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("view", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := leads.Get(ctx, ids[i%100]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("many/raw", func(b *testing.B) {
		for b.Loop() {
			_, err := rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
				for _, id := range ids {
					pipe.Get(ctx, leads.prefix+id)
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("many/view", func(b *testing.B) {
		for b.Loop() {
			if found, err := leads.GetMany(ctx, ids); err != nil || len(found) != 100 {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkGlob(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		globMatch("lead:*:score", "lead:12345:score")
	}
}

// A hit in the process, of more values than the processor's cache holds. The store is covered, so all is looked at.
func BenchmarkNear(b *testing.B) {
	ctx := context.Background()
	s, err := NewLocal(nil)
	if err != nil {
		b.Fatal(err)
	}
	const keys = 100_000
	leads := Of[lead](s, "lead", InProcess(Local{Entries: 2 * keys, Bytes: 1 << 30}))
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.01, 10, keys-1)
	drawn, all := make([]string, 1<<20), make([]string, keys)
	for i := range all {
		all[i] = fmt.Sprint(i)
		if err := leads.Set(ctx, all[i], lead{ID: all[i]}); err != nil {
			b.Fatal(err)
		}
	}
	for i := range drawn {
		drawn[i] = all[z.Uint64()]
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		if _, err := leads.Get(ctx, drawn[i%len(drawn)]); err != nil {
			b.Fatal(err)
		}
	}
}
