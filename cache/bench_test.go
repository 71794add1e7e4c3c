package cache

import (
	"context"
	"fmt"
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
