package queue

import (
	"testing"
	"time"
)

func TestRemarksAreMuted(t *testing.T) {
	var r remarks
	now := time.Now()
	for _, c := range []struct {
		after time.Duration
		task  string
		muted int
		ok    bool
	}{
		{0, "fetch", 0, true},
		{time.Millisecond, "fetch", 0, false},
		{time.Millisecond, "reap", 0, true}, // another task is another matter
		{999 * time.Millisecond, "fetch", 0, false},
		{time.Second, "fetch", 2, true},
		{2 * time.Second, "fetch", 0, true},
	} {
		if muted, ok := r.due(c.task, now.Add(c.after)); muted != c.muted || ok != c.ok {
			t.Errorf("%s after %v: %d muted, %v; want %d, %v", c.task, c.after, muted, ok, c.muted, c.ok)
		}
	}
}
