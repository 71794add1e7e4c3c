package cache

import (
	"fmt"
	"testing"
)

// What waits for a turn gets the one that is lent to who waits for its claim, whichever of all that comes last.
func TestTurnIsLentWhicheverComesLast(t *testing.T) {
	const key = "lead:1"
	for _, order := range [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			var q turnQueue
			claiming, queued, other := lentTurn{key: key}, lentTurn{key: key}, lentTurn{key: "lead:2"}
			blind := lentTurn{}
			woken, others := 0, 0
			var done, leave func()
			steps := []func(){
				func() { done = q.passOn(&claiming) },
				claiming.lend,
				func() { leave = q.enter([]*lentTurn{&blind, &queued}, func() { woken++ }) },
			}
			defer q.enter([]*lentTurn{&other}, func() { others++ })()
			for n, i := range order {
				if woken != 0 {
					t.Fatalf("woken before step %d", n)
				}
				steps[i]()
			}
			if woken == 0 || !queued.has() || blind.has() || others != 0 || other.has() {
				t.Errorf("woken %d times, others %d times", woken, others)
			}
			done()
			leave()
			if len(q.byKey) != 1 { // the other's
				t.Errorf("left behind: %v", q.byKey)
			}
			defer q.enter([]*lentTurn{{key: key}}, func() { t.Error("a turn was lent that nobody lends any more") })()
			claiming.lend()
		})
	}
}

// Who has waited for a claim without a turn to lend leaves nothing behind, and lends nothing afterwards.
func TestNoTurnIsPassedOnAfterTheWait(t *testing.T) {
	var q turnQueue
	claiming := lentTurn{key: "lead:1"}
	q.passOn(&claiming)()
	defer q.enter([]*lentTurn{{key: "lead:1"}}, func() { t.Error("the turn was passed on") })()
	claiming.lend()
}
