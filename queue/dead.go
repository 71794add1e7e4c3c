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
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	f.onDead(ctx, DeadJob{Queue: f.queue.Name, ID: id, Kind: info.Type, Payload: info.Payload, Error: info.LastErr, Retried: info.Retried})
}

// failedWith is what makes asynq's message say why and when a job failed: protobuf's fields 7 and 11. Of a field that
// occurs twice the last one counts, so it is appended and nothing decoded.
func failedWith(at time.Time, reason string) []byte {
	out := append([]byte{7<<3 | 2}, varint(uint64(len(reason)))...)
	out = append(out, reason...)
	return append(append(out, 11<<3), varint(uint64(at.Unix()))...)
}

func varint(n uint64) []byte {
	var out []byte
	for ; n >= 0x80; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(out, byte(n))
}
