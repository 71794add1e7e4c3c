package queue

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/faultconn"
)

// TestFinishSurvivesBlips breaks the connections at the very end of a job: on the way there Redis does not hear of
// the end, on the way back the worker does not hear that Redis did. Neither may run the job again.
func TestFinishSurvivesBlips(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]faultconn.Direction{"call lost": faultconn.ToServer, "answer lost": faultconn.ToClient} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy, rdb := proxied(t, 200*time.Millisecond)
			q := fresh("finish")
			direct := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
			enqueue(t, direct, q, 2, MaxRetry(0)) // the first makes Redis know the scripts
			var log lines
			w := newWorker(t, newJobs(t, rdb, &Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, Queue{Name: q}), &WorkerOptions{Concurrency: 1})
			var done ledger
			returned := make(chan struct{})
			Handle(w, func(_ context.Context, job note) error {
				done.add(job.N)
				if job.N == 1 {
					proxy.Blackhole(dir)
					close(returned)
				}
				return nil
			})
			stop := start(t, w)
			<-returned
			sleep(t.Context(), 300*time.Millisecond) // longer than the read timeout: the fault has done its work
			proxy.Heal()
			// Sooner than the reaper acts, so it is not the reaper who has cleaned up.
			eventually(t, 8*time.Second, "the job is gone", func() bool { s := status(t, direct, q); return s.Active == 0 && s.Waiting == 0 })
			stop()
			done.check(t, 2, true)
			if text := log.String(); strings.Contains(text, "NOT FOUND") {
				t.Errorf("a recorded end looked like a failure: %s", text)
			}
		})
	}
}

type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
