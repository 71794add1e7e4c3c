package sessionbench

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/redisclient"
	"github.com/scaleaware/scaleaware/session"
)

const probesNote = "A management listener on loopback, whose readiness asks PostgreSQL and Redis, while both are stopped by SIGSTOP: connections stay open, and nobody answers. One client asks /livez over a connection that is kept, another one /readyz, each twenty milliseconds. " +
	"Readiness has a second for each check, all at once."

// probes measures how long probes take while nothing that the process depends on answers.
func (l *lab) probes(ctx context.Context) ([]report.Row, error) {
	if err := l.open(ctx); err != nil {
		return nil, err
	}
	asked := 5000
	if l.quick {
		asked = 500
	}
	cluster, err := pgcluster.Start(ctx, &pgcluster.Options{})
	if err != nil {
		return nil, err
	}
	l.closers = append(l.closers, cluster.Close)
	handler, stop, err := l.management(ctx, cluster.Primary().URL("postgres"))
	if err != nil {
		return nil, err
	}
	defer stop()
	server := httptest.NewServer(handler)
	defer server.Close()
	if _, status, err := probe(ctx, server, "/readyz"); err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("/readyz before anything is stopped: %d, %w", status, err)
	}
	redis := l.server.Nodes()[0]
	cluster.Primary().Freeze()
	redis.Freeze()
	defer cluster.Primary().Thaw()
	defer redis.Thaw()

	over, end := context.WithCancel(ctx)
	defer end()
	var ready []time.Duration
	var readyErr error
	var other sync.WaitGroup
	other.Go(func() {
		const noticed = 3 * time.Second // an answer may be a second old
		for begun := time.Now(); over.Err() == nil; {
			took, status, err := probe(ctx, server, "/readyz")
			if err != nil || status != http.StatusServiceUnavailable && time.Since(begun) > noticed {
				readyErr = fmt.Errorf("/readyz: %d, %w", status, err)
				return
			}
			ready = append(ready, took)
			time.Sleep(20 * time.Millisecond)
		}
	})
	live := make([]time.Duration, 0, asked)
	for range asked {
		took, status, err := probe(ctx, server, "/livez")
		if err != nil || status != http.StatusOK {
			return nil, fmt.Errorf("/livez: %d, %w", status, err)
		}
		live = append(live, took)
		time.Sleep(time.Millisecond)
	}
	end()
	other.Wait()
	if readyErr != nil {
		return nil, readyErr
	}
	slices.Sort(live)
	slices.Sort(ready)
	p99, longest := live[len(live)*99/100], ready[len(ready)-1]
	return []report.Row{
		{
			What: "/livez", Goal: "p99 ≤ 1 ms", Met: report.AtMost(p99.Seconds(), 0.001),
			Ours: fmt.Sprintf("p50 %s, p99 %s, longest of %d %s", report.Since(live[len(live)/2]), report.Since(p99), len(live), report.Since(live[len(live)-1])),
		},
		{
			What: "/readyz", Goal: "≤ 1 s, the checks' timeout", Met: report.AtMost(longest.Seconds(), 1.05),
			Ours: fmt.Sprintf("p50 %s, longest of %d %s", report.Since(ready[len(ready)/2]), len(ready), report.Since(longest)),
		},
	}, nil
}

// management returns the listener of a process with a database and sessions.
func (l *lab) management(ctx context.Context, url string) (h http.Handler, stop func(), err error) {
	db, err := dbsplit.Open(ctx, dbsplit.Nodes{Primary: url}, nil)
	if err != nil {
		return nil, nil, err
	}
	rdb := redisclient.New(redisclient.Options(l.server.Addrs()...))
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	stop = func() { cancel(); wg.Wait(); db.Close(); _ = rdb.Close() }
	sessions, err := session.New(rdb, &session.Options{Insecure: true})
	if err != nil {
		stop()
		return nil, nil, err
	}
	wg.Go(func() { _ = db.Run(running) })
	wg.Go(func() { _ = sessions.Run(running) })
	h, err = admin.New(nil, &admin.Options{Checks: []admin.Check{{Name: "database", Ready: db.Ready}, {Name: "sessions", Ready: sessions.Ready}}})
	if err != nil {
		stop()
		return nil, nil, err
	}
	return h, stop, nil
}

func probe(ctx context.Context, server *httptest.Server, path string) (took time.Duration, status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	resp, err := server.Client().Do(r)
	if err != nil {
		return 0, 0, err
	}
	took = time.Since(begun)
	return took, resp.StatusCode, resp.Body.Close()
}
