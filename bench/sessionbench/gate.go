package sessionbench

import (
	"context"
	"net/http"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/readonly"
)

const gateNote = "Added to a handler that does nothing, round by round, while writes are allowed."

func (l *lab) gate(ctx context.Context) (rows []report.Row, err error) {
	mode, err := readonly.New(readonly.NewMemory(), nil)
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- mode.Run(running) }()
	defer func() { stop(); <-done }()
	for mode.AllowWrite(ctx) != nil {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	bare := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	guarded := mode.Middleware(bare)
	for _, c := range []struct {
		what, method string
		limit        float64
	}{{"a read (GET)", http.MethodGet, 5}, {"a write (POST)", http.MethodPost, 15}} {
		r, err := http.NewRequestWithContext(ctx, c.method, "/", nil)
		if err != nil {
			return nil, err
		}
		w := &response{header: http.Header{}}
		op := func(h http.Handler) func(context.Context) error {
			return func(context.Context) error {
				for range 100 {
					h.ServeHTTP(w, r)
				}
				return nil
			}
		}
		results, err := l.run(ctx, pairs.Contender{Name: "bare", Op: op(bare)}, pairs.Contender{Name: "guarded", Op: op(guarded)})
		if err != nil {
			return nil, err
		}
		added := pairs.Result{Allocs: (results[1].Allocs - results[0].Allocs) / 100, Bytes: (results[1].Bytes - results[0].Bytes) / 100}
		for i := range results[1].Rounds {
			added.Rounds = append(added.Rounds, (results[1].Rounds[i]-results[0].Rounds[i])/100)
		}
		rows = append(rows, report.Row{
			What: c.what, Goal: "≤ " + report.Duration(c.limit) + ", 0 allocs", Ours: figures(added),
			Met: report.All(report.MedianAtMost(added.Time(), c.limit), report.AtMost(added.Allocs, .01)),
		})
	}
	return rows, nil
}
