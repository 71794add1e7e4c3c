package lead

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/redisclient"
)

// server is a Redis of one's own.
func server(t *testing.T) redis.UniversalClient {
	t.Helper()
	server, err := rediscluster.Start(t.Context(), &rediscluster.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	rdb := redisclient.New(redisclient.Options(server.Addrs()...))
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// A pause of somebody's that ends by itself is not enough for an incident, one without an end is, and stays that one's.
func TestIncidentsPauseOutlastsOthers(t *testing.T) {
	rdb := server(t)
	jobs, err := queue.New(rdb, []queue.Queue{{Name: queueLow}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	step := (&Service{Jobs: jobs}).pauseLow()
	pause := func(lasts time.Duration) {
		t.Helper()
		if _, err := jobs.Pause(t.Context(), queueLow, &queue.Hold{Owner: "alice", For: lasts}); err != nil {
			t.Fatal(err)
		}
	}
	pause(time.Minute)
	if _, err := step.Do(t.Context()); !errors.Is(err, queue.ErrHeld) {
		t.Errorf("beside a pause of a minute: %v", err)
	}
	pause(0)
	if _, err := step.Do(t.Context()); err != nil {
		t.Errorf("beside a pause without an end: %v", err)
	}
	if _, err := step.Undo(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s, err := jobs.Status(t.Context(), queueLow)
	if err != nil || s.Pause == nil || s.Pause.Owner != "alice" {
		t.Errorf("afterwards the queue is paused by %+v, %v", s.Pause, err)
	}
	if _, err := jobs.Unpause(t.Context(), queueLow, "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := step.Do(t.Context()); err != nil {
		t.Errorf("when nobody holds it: %v", err)
	}
}

func TestIncidentExtendsTTLs(t *testing.T) {
	rdb := server(t)
	store, err := cache.New(rdb, &cache.Options{Prefix: "app:"})
	if err != nil {
		t.Fatal(err)
	}
	leads := cache.Of[Lead](store, "lead", cache.TTL(time.Hour), cache.Jitter(0))
	if err := leads.Set(t.Context(), "1", Lead{ID: "1"}); err != nil {
		t.Fatal(err)
	}
	ttl := func(when string, want time.Duration) {
		t.Helper()
		got, err := rdb.PTTL(t.Context(), "app:lead:1").Result()
		if err != nil || got > want || got < want-time.Minute {
			t.Errorf("%s it has %v to live, want %v, %v", when, got, want, err)
		}
	}
	step := (&Service{store: store}).extendTTLs()
	ttl("before the incident", time.Hour)
	done, err := step.Do(t.Context())
	if report, ok := done.(cache.Report); !ok || err != nil || report.Changed != 1 {
		t.Errorf("extended: %+v, %v", done, err)
	}
	ttl("in the incident", 2*time.Hour)
	undone, err := step.Undo(t.Context(), nil)
	if report, ok := undone.(cache.Report); !ok || err != nil || report.Changed != 1 {
		t.Errorf("restored: %+v, %v", undone, err)
	}
	ttl("after the incident", time.Hour)
}
