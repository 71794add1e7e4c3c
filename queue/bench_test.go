package queue

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// BenchmarkJobs compares a worker with bare asynq, both with 50 slots and handlers that do nothing.
func BenchmarkJobs(b *testing.B) {
	rdb := redisclient.New(redisclient.Options(single.Get(b).Addrs()...))
	defer rdb.Close()
	b.Run("bare", func(b *testing.B) {
		q := fresh("bench")
		left, done := expect(b, rdb, q)
		b.ResetTimer()
		server := asynq.NewServerFromRedisClient(rdb, asynq.Config{Concurrency: 50, Queues: map[string]int{q: 1}, LogLevel: asynq.ErrorLevel})
		if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
			if left.Add(-1) == 0 {
				close(done)
			}
			return nil
		})); err != nil {
			b.Fatal(err)
		}
		<-done
		b.StopTimer()
		server.Shutdown()
	})
	for name, rate := range map[string]Rate{"gated": {}, "limited": {Max: 100_000, Per: 1e9}} {
		b.Run(name, func(b *testing.B) {
			q := fresh("bench")
			left, done := expect(b, rdb, q)
			j, err := New(rdb, []Queue{{Name: q, Rate: rate}}, nil)
			if err != nil {
				b.Fatal(err)
			}
			w, err := j.NewWorker(&WorkerOptions{Concurrency: 50})
			if err != nil {
				b.Fatal(err)
			}
			Handle(w, func(context.Context, note) error {
				if left.Add(-1) == 0 {
					close(done)
				}
				return nil
			})
			ctx, cancel := context.WithCancel(b.Context())
			b.ResetTimer()
			var run sync.WaitGroup
			run.Go(func() {
				if err := w.Run(ctx); err != nil {
					b.Error(err)
				}
			})
			<-done
			b.StopTimer()
			cancel()
			run.Wait()
		})
	}
}

// expect enqueues b.N jobs and returns a counter of those that are not done.
func expect(b *testing.B, rdb redis.UniversalClient, q string) (*atomic.Int64, chan struct{}) {
	b.Helper()
	j, err := New(rdb, []Queue{{Name: q}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	jobs := make([]Job, b.N)
	for i := range jobs {
		jobs[i] = note{N: i}
	}
	if _, err := j.EnqueueMany(b.Context(), jobs); err != nil {
		b.Fatal(err)
	}
	left := new(atomic.Int64)
	left.Store(int64(b.N))
	return left, make(chan struct{})
}
