package history

import (
	"fmt"
	"sync"
)

// Ledger judges rows with unique keys. All methods are safe for concurrent use.
type Ledger struct {
	mu   sync.Mutex
	rows map[string]entry
}

type entry struct {
	session string
	op      Op
	sent    int
}

// NewLedger returns an empty Ledger.
func NewLedger() *Ledger { return &Ledger{rows: map[string]entry{}} }

// Add notes the attempt of a session to write the row key. A client sends each key once.
func (l *Ledger) Add(session, key string, op Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows[key] = entry{session: session, op: op, sent: l.rows[key].sent + 1}
}

// Audit is what a Ledger found.
type Audit struct {
	Acknowledged, Unknown, Failed int
	Applied                       int // of unknown outcome, and stored
	// Violations holds the shortest violation of each promise that was broken.
	Violations []Violation
	counts     [promises]int
}

// Count is how often a promise was broken.
func (a *Audit) Count(p Promise) int { return a.counts[p] }

// String is the audit in a line, and one for each broken promise.
func (a *Audit) String() string {
	broken := 0
	for _, n := range a.counts {
		broken += n
	}
	text := fmt.Sprintf("%d acknowledged, %d of unknown outcome (%d of them stored), %d failed; %d violations",
		a.Acknowledged, a.Unknown, a.Applied, a.Failed, broken)
	for _, v := range a.Violations {
		text += fmt.Sprintf("\n%d × %v", a.counts[v.Promise], v)
	}
	return text
}

// Audit compares the ledger with how often each key is stored, when no attempt is under way any more.
func (l *Ledger) Audit(stored map[string]int) *Audit {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := new(Audit)
	var all found
	for key, e := range l.rows {
		n := stored[key]
		bad := func(p Promise, note string) {
			all.add(Violation{Promise: p, Session: e.session, Key: key, Before: e.op, Note: note})
		}
		if e.sent > 1 {
			bad(Malformed, fmt.Sprintf("its client sent it %d times", e.sent))
		}
		switch e.op.Outcome {
		case OK:
			a.Acknowledged++
			if n == 0 {
				bad(LostUpdate, "it is not stored")
			}
		case Unknown:
			a.Unknown++
			if n > 0 {
				a.Applied++
			}
		case Failed:
			a.Failed++
			if n > 0 {
				bad(Phantom, fmt.Sprintf("it is stored %d times", n))
			}
		}
		if n > 1 {
			bad(DoubleApply, fmt.Sprintf("it is stored %d times", n))
		}
	}
	for key, n := range stored {
		if _, sent := l.rows[key]; !sent && n > 0 {
			all.add(Violation{Promise: Phantom, Session: "nobody", Key: key, Note: "nobody has sent it"})
		}
	}
	a.Violations, a.counts = all.list(), all.counts
	return a
}
