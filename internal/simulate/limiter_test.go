package simulate

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/queue"
)

// limiter lets two or three workers share a limited queue. No window of Per, by Redis's clock, holds more than Max
// starts; a start is counted when its handler begins, as granted when Redis answered. An answer that is lost, or comes too
// late, starts nothing, and the worker's next call takes it back; a job that is given back unstarted gives its start back. After the
// last fault all jobs are done.
func limiter(w *world) {
	rate := queue.Rate{Max: 1 + w.IntN(12), Per: time.Duration(1+w.IntN(4)) * 500 * time.Millisecond}
	q := queue.Queue{Name: "q", Rate: rate}
	if w.IntN(3) == 0 { // its waits are on the grid, too
		rate = queue.Rate{Max: []int{1, 2, 4, 5, 8, 20, 40}[w.IntN(7)], Per: 1995 * time.Millisecond}
		q.Rate, q.Smooth = rate, true
	}
	workers := 2 + w.IntN(2)
	const fill = 4 * time.Second
	jobs := min(40, 2*int(fill/rate.Per)*rate.Max)
	w.slowest, w.late = w.between(0, 50*time.Millisecond), w.between(0, 20*time.Millisecond)
	names := make([]string, workers)
	for i := range names {
		names[i] = "worker " + strconv.Itoa(i)
	}
	w.note("planned: %d workers, %d starts in %v, smooth %v, %d jobs", workers, rate.Max, rate.Per, q.Smooth, jobs)
	w.plague(fill, fill*3/4, names...)
	for range w.IntN(3) {
		s := step{w.between(0, fill), w.between(0, 2*rate.Per) / grid * grid}
		w.steps = append(w.steps, s)
		w.note("planned: Redis's clock steps by %v at %v", s.by, s.at)
	}

	var mu sync.Mutex                   // times are Redis's
	grants := map[[2]string]time.Time{} // by worker and job
	var starts []time.Time
	w.heard = func(process string, reply []byte, answered time.Time, lost bool) {
		ids := granted(reply)
		if len(ids) == 0 {
			return
		}
		w.note("%s is granted %d, lost %v", process, len(ids), lost)
		if lost {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, id := range ids {
			grants[[2]string{process, id}] = answered
		}
	}
	begins := func(process, id string) {
		mu.Lock()
		defer mu.Unlock()
		at, known := grants[[2]string{process, id}]
		if !known {
			w.violated("%s runs a job that it was not granted", process)
			return
		}
		first, _ := slices.BinarySearchFunc(starts, at, time.Time.Compare)
		starts = slices.Insert(starts, first, at)
		for last := max(first, rate.Max); last < min(first+1+rate.Max, len(starts)); last++ {
			if span := starts[last].Sub(starts[last-rate.Max]); span < rate.Per {
				w.violated("%d starts were granted within %v, and %d in %v are allowed", rate.Max+1, span, rate.Max, rate.Per)
				break
			}
		}
	}

	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	left := map[int]bool{}
	for i := range jobs {
		left[i] = true
	}
	for _, name := range names {
		j, err := queue.New(w.client(name), []queue.Queue{q}, &queue.Options{Gate: gate{w}})
		if err != nil {
			w.t.Fatal(err)
		}
		worker, err := j.NewWorker(&queue.WorkerOptions{Concurrency: 1 + w.IntN(8), PollInterval: 200 * time.Millisecond})
		if err != nil {
			w.t.Fatal(err)
		}
		queue.Handle(worker, func(ctx context.Context, job task) error {
			begins(name, queue.AttemptFrom(ctx).ID)
			w.note("%s runs job %d", name, job.N)
			w.work(time.Duration(w.draw("run", name, job.N) % uint64(300*time.Millisecond)))
			mu.Lock()
			defer mu.Unlock()
			delete(left, job.N)
			return nil
		})
		time.Sleep(w.between(0, 100*time.Millisecond))
		running.Go(func() {
			if err := worker.Run(ctx); err != nil {
				w.violated("%s: %v", name, err)
			}
		})
	}
	producer, err := queue.New(w.client("producer"), []queue.Queue{q}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < jobs; {
		var batch []queue.Job
		for range 1 + w.IntN(jobs) {
			if i < jobs {
				batch = append(batch, task{i})
				i++
			}
		}
		if _, err := producer.EnqueueMany(ctx, batch); err != nil {
			w.violated("enqueue: %v", err)
			return
		}
		w.note("%d jobs are enqueued", i)
		time.Sleep(w.between(0, fill/8))
	}
	undone := func() int { mu.Lock(); defer mu.Unlock(); return len(left) }
	// A job of a worker that lost it comes back by its lease, which is half a minute, perhaps twice.
	for range 300 {
		if undone() == 0 {
			w.end()
			return
		}
		time.Sleep(time.Second)
	}
	w.violated("%d jobs are not done five minutes after all was well", undone())
}

type task struct{ N int }

func (task) Kind() string { return "task" }

// granted reads whose starts an answer of the queue's pop script grants. One of a queue without a rate has the stamp 0.
func granted(reply []byte) (ids []string) {
	_, rest, _ := bytes.Cut(reply, []byte("\r\n"))
	var texts []string
	for bytes.HasPrefix(rest, []byte("$")) {
		size, behind, _ := bytes.Cut(rest[1:], []byte("\r\n"))
		n, err := strconv.Atoi(string(size))
		if err != nil || n < 0 || len(behind) < n+2 {
			return nil
		}
		texts, rest = append(texts, string(behind[:n])), behind[n+2:]
	}
	if len(texts) < 4 || texts[0] != "job" || texts[1] == "0" {
		return nil
	}
	for i := 2; i < len(texts); i += 2 {
		ids = append(ids, texts[i])
	}
	return ids
}
