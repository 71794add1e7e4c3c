package cache

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A few who wait go when one call has ended; a crowd waits for both, with those who come meanwhile, and goes once.
func TestCrowdGoesTogether(t *testing.T) {
	for _, c := range []struct{ early, late, turns int }{{crowded - 1, 0, 1}, {crowded, 0, 0}, {crowded, 5, 0}} {
		var l lane
		for range laneWidth {
			if b, _, _ := l.join(nil); b != nil {
				t.Fatal("the lane was not free")
			}
		}
		var b *batch
		for range c.early {
			b, _, _ = l.join(nil)
		}
		l.next()
		if len(b.turn) != c.turns {
			t.Errorf("%d wait and one call has ended: %d turns, want %d", c.early, len(b.turn), c.turns)
		}
		for range c.late {
			if later, _, _ := l.join(nil); later != b {
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
		b, _, _ = l.join(nil)
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

// Where many came lately, the first of the next ones leads a batch: who comes before it departs is in it, and a call that ends
// meanwhile gives it no second sender.
func TestFirstOfManyLeads(t *testing.T) {
	l := lane{last: company}
	b, _, leads := l.join(nil)
	if b == nil || !leads {
		t.Fatal("the first one goes alone")
	}
	for range maxBatch - 1 {
		if later, _, leads := l.join(nil); later != b || leads {
			t.Fatal("who comes before it departs is not in it, or leads too")
		}
	}
	l.flying++ // another call, which ends
	l.next()
	if l.flying != 1 || len(b.turn) != 0 {
		t.Errorf("%d under way, %d turns", l.flying, len(b.turn))
	}
	after, _, leads := l.join(nil)
	if after == b || leads {
		t.Error("the batch has more than it may, or the one behind it is led beside it")
	}
	l.depart(b)
	if l.forming != after || len(l.full) != 0 || l.last != maxBatch {
		t.Errorf("forming %v, %d full, %d commands in the last", l.forming, len(l.full), l.last)
	}
	l.next() // the end of the one that was led
	if len(after.turn) != 1 || l.flying != 1 || l.last != 1 {
		t.Errorf("%d turns, %d under way, %d commands in the last", len(after.turn), l.flying, l.last)
	}
	l.next()
	if b, _, _ := l.join(nil); b != nil {
		t.Error("a caller alone waits for company")
	}
}

// Many callers at once, batch after batch, have their own answers, and leave nothing behind.
func TestCrowdHasItsAnswers(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := running(t, newStore(t, rdb, nil))
		leads := Of[lead](s, "lead")
		const keys, callers = 50, 64
		for i := range keys {
			if err := leads.Set(ctx, strconv.Itoa(i), lead{Score: int64(i)}); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for caller := range callers {
			wg.Go(func() {
				for i := range 4 * keys {
					n := (caller + i) % keys
					if l, err := leads.Get(ctx, strconv.Itoa(n)); err != nil || l.Score != int64(n) {
						t.Errorf("%d: %+v, %v", n, l, err)
						return
					}
				}
			})
		}
		wg.Wait()
		if flying(s) != 0 || waiting(s) != 0 {
			t.Errorf("%d under way, %d wait", flying(s), waiting(s))
		}
	})
}

// Masters come and go; the ways to them do not become more and more.
func TestLanesOfOldMastersAreForgotten(t *testing.T) {
	var ls lanes
	first := ls.to("0")
	for i := range maxLanes {
		if l := ls.to(strconv.Itoa(i)); i == 0 && l != first {
			t.Error("another way to the same master")
		}
	}
	ls.to("another")
	if n := len(*ls.byAddr.Load()); n != 1 {
		t.Errorf("%d ways", n)
	}
}
