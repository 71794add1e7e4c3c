package lead

import (
	"errors"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/redisclient"
)

// A pause of somebody's that ends by itself is not enough for an incident, one without an end is, and stays that one's.
func TestIncidentsPauseOutlastsOthers(t *testing.T) {
	server, err := rediscluster.Start(t.Context(), &rediscluster.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	rdb := redisclient.New(redisclient.Options(server.Addrs()...))
	defer rdb.Close()
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
