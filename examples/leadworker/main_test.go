package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/queue"
)

var (
	postgres = pgcluster.NewShared(nil)
	redis    = rediscluster.NewShared(&rediscluster.Options{Nodes: 6})
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(postgres.Around(redis.Around(m)),
		goleak.IgnoreAnyFunction("github.com/alexedwards/scs/v2/memstore.(*MemStore).startCleanup")) // scs.New's, which cannot be stopped
}

// A worker waits for its schema, works, asks a scaler of yours for the least number of workers, and when it is told to stop
// puts back what it cannot finish, for the next one.
func TestWorker(t *testing.T) {
	database := postgres.Get(t).Database(t)
	url := postgres.Get(t).Primary().URL(database)
	posted := make(chan int, 100)
	scaler := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var d struct{ Workers int }
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			t.Error(err)
		}
		select {
		case posted <- d.Workers:
		default:
		}
	}))
	t.Cleanup(scaler.Close)
	admin := freeAddress(t)
	for name, value := range map[string]string{
		"DATABASE_URL_PRIMARY": url, "REDIS_ADDRS": strings.Join(redis.Get(t).Addrs(), ","), "SESSION_SECRET": strings.Repeat("s", 32),
		"ADMIN_ADDR": admin, "DRAIN_TIMEOUT": "1s", "AUTOSCALE": scaler.URL + "/workers",
	} {
		t.Setenv(name, value)
	}
	jobs := producer(t)

	stop := startWorker(t)
	await(t, "the schema is missed", func() error { return answers(admin, http.StatusServiceUnavailable, `"failing":["schema"]`) })
	if _, err := jobs.Enqueue(t.Context(), lead.ScoreLead{ID: "6f1f1d0e-7a3c-4b55-9f0e-0d8a5f0c2b11"}); err != nil {
		t.Fatal(err)
	}
	for range 50 { // fetched too early, it would have failed an attempt by then
		if err := errors.Join(answers(admin, http.StatusServiceUnavailable, `"failing":["schema"]`), queued(t, jobs, 1, 0)); err != nil {
			t.Fatalf("without a schema: %v", err)
		}
	}
	if n, err := jobs.Purge(t.Context(), lead.QueueLeads, queue.Waiting); n != 1 || err != nil {
		t.Fatalf("Purge = %d, %v", n, err)
	}
	if err := lead.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	await(t, "ready by itself", func() error { return answers(admin, http.StatusOK, "") })
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	id := "6f1f1d0e-7a3c-4b55-9f0e-0d8a5f0c2b11"
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	scored := func() (err error) {
		var is bool
		if err = conn.QueryRow(t.Context(), `SELECT score IS NOT NULL FROM "Lead"`).Scan(&is); err == nil && !is {
			err = errors.New("it has no score")
		}
		return err
	}
	exec(`INSERT INTO "Lead" (id, name, email, product) VALUES ('` + id + `', 'Ada', 'ada@example.com', 'home')`)
	if _, err := jobs.Enqueue(t.Context(), lead.ScoreLead{ID: id}); err != nil {
		t.Fatal(err)
	}
	await(t, "the lead is scored", scored)
	select {
	case n := <-posted:
		if n != fewWorkers {
			t.Errorf("the scaler was asked for %d workers, want %d", n, fewWorkers)
		}
	case <-time.After(time.Minute):
		t.Error("the scaler was asked for nothing")
	}

	// Nobody can score while the table is locked, and the time to finish is short.
	exec(`UPDATE "Lead" SET score = NULL`)
	exec(`BEGIN; LOCK TABLE "Lead"`)
	if _, err := jobs.Enqueue(t.Context(), lead.ScoreLead{ID: id}); err != nil {
		t.Fatal(err)
	}
	await(t, "a job is stuck", func() error { return queued(t, jobs, 0, 1) })
	if err := stop(); err != nil {
		t.Errorf("the worker ended with %v", err)
	}
	if err := queued(t, jobs, 1, 0); err != nil {
		t.Errorf("after the worker has ended: %v", err)
	}
	exec(`ROLLBACK`)
	stop = startWorker(t)
	await(t, "the next worker scores it", scored)
	await(t, "nothing is left", func() error { return queued(t, jobs, 0, 0) })
	if err := stop(); err != nil {
		t.Errorf("the second worker ended with %v", err)
	}
}

// startWorker runs the program as main does until it is told to stop.
func startWorker(t *testing.T) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return stop
}

// producer enqueues as an API instance does.
func producer(t *testing.T) *queue.Jobs {
	t.Helper()
	config, err := lead.FromEnvironment("producer")
	if err != nil {
		t.Fatal(err)
	}
	service, err := lead.Open(t.Context(), config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the producer ended with %v", err)
		}
		service.Close()
	})
	return service.Jobs
}

// queued tells how jobs are that are not as wanted. One that has failed an attempt never is.
func queued(t *testing.T, jobs *queue.Jobs, waiting, active int) error {
	t.Helper()
	got, err := jobs.Status(t.Context(), lead.QueueLeads)
	if err == nil && (got.Waiting != waiting || got.Active != active || got.Retrying+got.Failed > 0) {
		err = fmt.Errorf("%d waiting, %d active, %d retrying, %d failed", got.Waiting, got.Active, got.Retrying, got.Failed)
	}
	return err
}

// answers tells how /readyz answers if it is not as wanted.
func answers(admin string, status int, text string) error {
	resp, err := http.Get("http://" + admin + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != status || !strings.Contains(string(body), text)) {
		err = fmt.Errorf("%d: %s", resp.StatusCode, body)
	}
	return err
}

func await(t *testing.T, what string, wrong func() error) {
	t.Helper()
	err := wrong()
	for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline); err = wrong() {
		time.Sleep(50 * time.Millisecond) // it happens elsewhere
	}
	if err != nil {
		t.Fatalf("not within a minute: %s: %v", what, err)
	}
}

// freeAddress is one that the program can listen on, in the way in which an operator chooses one.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
