package queue

import (
	"bytes"
	"context"
	"encoding/gob"
	"testing"
)

type gobCodec struct{}

func (gobCodec) Marshal(job any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(job)
	return b.Bytes(), err
}

func (gobCodec) Unmarshal(data []byte, job any) error {
	return gob.NewDecoder(bytes.NewReader(data)).Decode(job)
}

func TestCodec(t *testing.T) {
	t.Parallel()
	q := fresh("codec")
	j := newJobs(t, client(t, single.Get(t).Addrs()), &Options{Codec: gobCodec{}}, Queue{Name: q})
	enqueue(t, j, q, 3)
	ran := make(chan int, 3)
	w := newWorker(t, j, &WorkerOptions{Concurrency: 1})
	Handle(w, func(_ context.Context, job note) error { ran <- job.N; return nil })
	start(t, w)
	for i := range 3 {
		if n := <-ran; n != i {
			t.Errorf("job %d ran, want %d", n, i)
		}
	}
}
