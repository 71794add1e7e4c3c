package queue_test

import (
	"context"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/queue"
)

// ScoreLead is a job: a JSON value whose type has a name for ever.
type ScoreLead struct {
	ID int `json:"id"`
}

func (ScoreLead) Kind() string  { return "lead.score" }
func (ScoreLead) Queue() string { return "critical" }

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rdb := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{"127.0.0.1:6379"}, ContextTimeoutEnabled: true})
	defer rdb.Close()

	jobs, err := queue.New(rdb, []queue.Queue{
		{Name: "critical", Rate: queue.Rate{Max: 1000, Per: time.Second}, Weight: 6},
		{Name: "normal", Rate: queue.Rate{Max: 100, Per: time.Second}, Weight: 3},
		{Name: "low-priority", Rate: queue.Rate{Max: 10, Per: time.Second}},
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := jobs.Enqueue(ctx, ScoreLead{ID: 1}); err != nil {
		fmt.Println(err)
		return
	}
	worker, err := jobs.NewWorker(&queue.WorkerOptions{Concurrency: 50})
	if err != nil {
		fmt.Println(err)
		return
	}
	queue.Handle(worker, func(ctx context.Context, job ScoreLead) error {
		fmt.Println("scoring lead", job.ID)
		cancel() // ends Run, which drains
		return nil
	})
	if err := worker.Run(ctx); err != nil {
		fmt.Println(err)
	}
}

func ExampleWorker_HandleTask() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rdb := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{"127.0.0.1:6379"}, ContextTimeoutEnabled: true})
	defer rdb.Close()
	jobs, err := queue.New(rdb, []queue.Queue{{Name: "critical", Rate: queue.Rate{Max: 1000, Per: time.Second}}}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	worker, err := jobs.NewWorker(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := asynq.NewServeMux() // as it was
	mux.HandleFunc("lead:score", func(ctx context.Context, task *asynq.Task) error {
		id, _ := asynq.GetTaskID(ctx)
		_, err := fmt.Fprintf(task.ResultWriter(), "job %s scored %s", id, task.Payload())
		return err
	})
	worker.HandleTask("", mux)
	if err := worker.Run(ctx); err != nil {
		fmt.Println(err)
	}
}

func ExampleNew() {
	rdb := redis.NewClient(&redis.Options{})
	defer rdb.Close()
	_, err := queue.New(rdb, []queue.Queue{
		{Name: "critical", Rate: queue.Rate{Max: 1000}},
		{Name: "{low}"},
	}, nil)
	fmt.Println(err)
	// Output:
	// queue: Rate.Per of queue "critical" is 0s, want 10ms to 24h
	// queue: Name is "{low}", want 1 to 64 letters, digits, dots, dashes and underscores
}
