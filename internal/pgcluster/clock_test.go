package pgcluster_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// A server's clock is set while others keep theirs, for its sessions too that have begun; nothing of it is left in shared memory.
func TestSetClock(t *testing.T) {
	c := start(t, &pgcluster.Options{Replicas: 1, Clocks: true})
	database := c.Database(t)
	primary, replica := connect(t, c.Primary(), database), connect(t, c.Replica(0), database)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, ahead := range []time.Duration{time.Hour, -time.Hour, 0} {
		must(t, c.Replica(0).SetClock(ahead))
		deadline := time.Now().Add(10 * time.Second)
		for {
			off := time.Until(get[time.Time](t, replica, "select clock_timestamp()")) - ahead
			if off.Abs() < 5*time.Second {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("its clock is off by %v, want %v", off+ahead, ahead)
			}
			<-tick.C
		}
		if off := time.Since(get[time.Time](t, primary, "select clock_timestamp()")); off.Abs() > 5*time.Second {
			t.Errorf("the primary's clock is off by %v", off)
		}
	}
	before, _ := filepath.Glob("/dev/shm/*faketime_*")
	must(t, c.Close())
	if after, _ := filepath.Glob("/dev/shm/*faketime_*"); len(after) > len(before)-2 {
		t.Errorf("left in shared memory: %q, before %q", after, before)
	}
	if err := shared.Get(t).Primary().SetClock(time.Hour); err == nil {
		t.Error("a clock was set that is the machine's")
	}
}
