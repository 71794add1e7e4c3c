package cache

import (
	"testing"
	"time"
)

// A few who wait go when one call has ended; a crowd waits for both, with those who come meanwhile, and goes once.
func TestCrowdGoesTogether(t *testing.T) {
	for _, c := range []struct{ early, late, turns int }{{crowded - 1, 0, 1}, {crowded, 0, 0}, {crowded, 5, 0}} {
		var l lane
		for range laneWidth {
			if b, _ := l.join(nil); b != nil {
				t.Fatal("the lane was not free")
			}
		}
		var b *batch
		for range c.early {
			b, _ = l.join(nil)
		}
		l.next()
		if len(b.turn) != c.turns {
			t.Errorf("%d wait and one call has ended: %d turns, want %d", c.early, len(b.turn), c.turns)
		}
		for range c.late {
			if later, _ := l.join(nil); later != b {
				t.Error("who came meanwhile is not in the batch")
			}
		}
		l.next()
		if c.turns == 0 && (len(b.turn) != 1 || len(b.commands) != c.early+c.late || l.flying != 1) {
			t.Errorf("both calls have ended: %d turns, %d commands, %d under way", len(b.turn), len(b.commands), l.flying)
		}
		l.next()
		if l.flying != 0 || l.forming != nil {
			t.Errorf("%d under way, forming %v", l.flying, l.forming)
		}
	}
}

// A crowd does not wait for a call that does not come back.
func TestCrowdGoesOnBesideALostCall(t *testing.T) {
	var l lane
	for range laneWidth {
		l.join(nil)
	}
	var b *batch
	for range crowded {
		b, _ = l.join(nil)
	}
	l.next()
	select {
	case <-b.turn:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody goes on")
	}
	l.urge() // late
	l.next()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flying != 1 || l.forming != nil {
		t.Errorf("%d under way, want the lost one; forming %v", l.flying, l.forming)
	}
}
