package queue

import (
	"context"
	"time"
)

// DeadJob is a job that has used up its attempts. It stays among the failed ones until retry-failed or a purge.
type DeadJob struct {
	// Queue, ID and Kind name it.
	Queue, ID, Kind string
	// Payload is the job as it was encoded: JSON, unless Options.Codec says otherwise.
	Payload []byte
	// Error is what its last attempt ended with.
	Error string
	// Stack is that of its panic, when the last attempt ended with one: see PanicError.
	Stack string
	// Retried is how often it was tried again.
	Retried int
}

// died counts a job that has failed for good, and tells whoever asked to be told.
func (f *fetcher) died(id string) {
	f.jobs.meters.dead.WithLabelValues(f.queue.Name).Inc()
	if f.onDead == nil {
		return
	}
	info, err := f.jobs.asynq.GetTaskInfo(f.queue.Name, id)
	if err != nil {
		f.jobs.background("dead", err, "queue", f.queue.Name)
		return
	}
	defer func() {
		if x := recover(); x != nil {
			f.jobs.log.Error("queue: OnDead panicked", "queue", f.queue.Name, "panic", x)
		}
	}()
	read, cancel := context.WithTimeout(context.Background(), time.Second)
	noted := f.jobs.rdb.HGet(read, taskPrefix(f.queue.Name)+id, fieldPanic).Val() // without an answer, without the stack
	cancel()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	f.onDead(ctx, DeadJob{
		Queue: f.queue.Name, ID: id, Kind: info.Type, Payload: info.Payload, Error: info.LastErr, Stack: stackOf(info.LastErr, noted), Retried: info.Retried,
	})
}
