package queue

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// The end of a process in the middle of its background work is no failure of that.
func TestShutdownIsNoFailure(t *testing.T) {
	t.Parallel()
	q := fresh("end")
	log := new(lines)
	j := newJobs(t, client(t, single.Get(t).Addrs()), &Options{Logger: slog.New(slog.NewTextHandler(log, nil))}, Queue{Name: q})
	asked := make(chan struct{}, 1)
	rule := ScaleRule{Queue: q, Above: 10, Up: 5, Below: 3, Down: 2}
	err := j.Autoscale(rule, func(ctx context.Context, _ Decision) error { return ctx.Err() }, &ScaleOptions{
		Interval: 10 * time.Millisecond,
		Bottleneck: func(ctx context.Context) (string, error) {
			asked <- struct{}{}
			<-ctx.Done()
			return "", context.Cause(ctx)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorker(t, j, nil)
	Handle(w, func(context.Context, note) error { return nil })
	stopWorker, stopJobs := start(t, w), start(t, j)
	<-asked
	stopJobs()
	stopWorker()
	if text := log.String(); strings.Contains(text, "failed") {
		t.Errorf("the log says:\n%s", text)
	}
}
