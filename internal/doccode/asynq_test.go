package doccode_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/redisclient"
)

type sendEmail struct {
	To string `json:"to"`
}

func deliver(context.Context, sendEmail) error { return nil }

func Example_beforeAsynq() {
	_ = func(ctx context.Context, addr, to string) error {
		client := asynq.NewClient(asynq.RedisClientOpt{Addr: addr})
		defer client.Close()
		payload, err := json.Marshal(sendEmail{To: to})
		if err != nil {
			return err
		}
		_, err = client.EnqueueContext(ctx, asynq.NewTask("email:send", payload), asynq.Queue("critical"), asynq.MaxRetry(5))
		return err
	}
	_ = func(addr string) error {
		server := asynq.NewServer(asynq.RedisClientOpt{Addr: addr}, asynq.Config{
			Concurrency: 20,
			Queues:      map[string]int{"critical": 6, "low": 1},
		})
		mux := asynq.NewServeMux()
		mux.HandleFunc("email:send", func(ctx context.Context, t *asynq.Task) error {
			var job sendEmail
			if err := json.Unmarshal(t.Payload(), &job); err != nil {
				return err
			}
			return deliver(ctx, job)
		})
		return server.Run(mux)
	}
}

// SendEmail is the same payload, with its type's name.
type SendEmail struct {
	To string `json:"to"`
}

// Kind is the name that asynq's task had.
func (SendEmail) Kind() string { return "email:send" }

// Queue is where it went.
func (SendEmail) Queue() string { return "critical" }

func deliverNow(context.Context, SendEmail) error { return nil }

func Example_fromAsynq() {
	_ = func(rdb redis.UniversalClient, db *dbsplit.DB) (*queue.Jobs, error) {
		jobs, err := queue.New(rdb, []queue.Queue{{Name: "critical", Weight: 6}, {Name: "low", Weight: 1}}, &queue.Options{Outbox: db})
		return jobs, err
	}
	_ = func(ctx context.Context, jobs *queue.Jobs, to string) error {
		_, err := jobs.Enqueue(ctx, SendEmail{To: to}, queue.MaxRetry(5))
		return err
	}
	_ = func(ctx context.Context, jobs *queue.Jobs, db *dbsplit.DB, to string) error {
		return db.InTx(ctx, func(tx pgx.Tx) error {
			return jobs.EnqueueTx(ctx, tx, SendEmail{To: to}) // enqueued if, and only if, this commits
		})
	}
	_ = func(ctx context.Context, jobs *queue.Jobs) error {
		worker, err := jobs.NewWorker(&queue.WorkerOptions{Concurrency: 20})
		if err != nil {
			return err
		}
		queue.Handle(worker, func(ctx context.Context, job SendEmail) error {
			return deliverNow(ctx, job)
		})
		return worker.Run(ctx) // until ctx ends, and then until what runs is done
	}
	_ = func(ctx context.Context, jobs *queue.Jobs, mux *asynq.ServeMux) error {
		worker, err := jobs.NewWorker(&queue.WorkerOptions{Concurrency: 20})
		if err != nil {
			return err
		}
		worker.HandleTask("", mux) // asynq's, with its middleware: it gets what no Handle takes
		queue.Handle(worker, func(ctx context.Context, job SendEmail) error {
			return deliverNow(ctx, job)
		})
		return worker.Run(ctx)
	}
}

var redisServer = rediscluster.NewShared(&rediscluster.Options{Nodes: 1})

func TestMain(m *testing.M) { goleak.VerifyTestMain(redisServer.Around(m)) }

// TestAsynqTasksStayInPlace enqueues with plain asynq and runs with package queue, and the other way round: what
// docs/migrating-from-asynq.md says of the way there and back.
func TestAsynqTasksStayInPlace(t *testing.T) {
	rdb := redisclient.New(redisclient.Options(redisServer.Get(t).Addrs()...))
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	jobs, err := queue.New(rdb, []queue.Queue{{Name: "critical"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := asynq.NewClientFromRedisClient(rdb)
	ran := make(chan string, 1)

	if _, err := client.Enqueue(asynq.NewTask("email:send", []byte(`{"to":"ada"}`)), asynq.Queue("critical")); err != nil {
		t.Fatal(err)
	}
	worker, err := jobs.NewWorker(nil)
	if err != nil {
		t.Fatal(err)
	}
	queue.Handle(worker, func(_ context.Context, job SendEmail) error { ran <- job.To; return nil })
	working, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- worker.Run(working) }()
	want(ctx, t, ran, "ada")
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	if _, err := jobs.Enqueue(ctx, SendEmail{To: "bob"}); err != nil {
		t.Fatal(err)
	}
	server := asynq.NewServerFromRedisClient(rdb, asynq.Config{Queues: map[string]int{"critical": 1}, LogLevel: asynq.FatalLevel})
	mux := asynq.NewServeMux()
	mux.HandleFunc("email:send", func(_ context.Context, task *asynq.Task) error {
		var job sendEmail
		err := json.Unmarshal(task.Payload(), &job)
		ran <- job.To
		return err
	})
	if err := server.Start(mux); err != nil {
		t.Fatal(err)
	}
	want(ctx, t, ran, "bob")
	server.Shutdown()
}

func want(ctx context.Context, t *testing.T, ran <-chan string, name string) {
	t.Helper()
	select {
	case got := <-ran:
		if got != name {
			t.Errorf("ran for %q, want %q", got, name)
		}
	case <-ctx.Done():
		t.Fatalf("the job for %s did not run", name)
	}
}
