package dbsplit

import (
	"testing"
	"time"
)

func TestStatementHistory(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var h statementHistory
	at := func(d time.Duration) statementSnapshot { return statementSnapshot{at: start.Add(d), reset: start} }
	if _, ok := h.since("n", at(0), time.Hour); ok {
		t.Error("there was nothing to compare with")
	}
	if _, ok := h.since("other", at(0), time.Hour); ok {
		t.Error("the history of another node")
	}
	// Three days of samples: each window is found, none is longer than asked for, and not much is kept.
	for d := statementInterval; d <= 72*time.Hour; d += statementInterval {
		now := at(d)
		for _, window := range []time.Duration{10 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour} {
			base, ok := h.since("n", now, window)
			if age := now.at.Sub(base.at); !ok || age > window || d >= window && age < window/2 {
				t.Fatalf("after %v a window of %v is %v long", d, window, age)
			}
		}
		if kept := h.nodes["n"]; len(kept) > keptStatements || now.at.Sub(kept[0].at) > statementsFor {
			t.Fatalf("after %v %d are kept, from %v", d, len(kept), kept[0].at)
		}
	}
	if base, ok := h.since("n", at(80*time.Hour), time.Hour); !ok || !base.at.Equal(start.Add(72*time.Hour)) {
		t.Errorf("a window without a sample falls back to the newest: %v", base.at)
	}
	n := len(h.nodes["n"])
	if h.since("n", at(80*time.Hour+time.Second), time.Hour); len(h.nodes["n"]) != n {
		t.Error("calls that follow each other fill the history")
	}
	h.only([]*node{{endpoint: endpoint{name: "n"}}})
	if len(h.nodes) != 1 {
		t.Errorf("of removed nodes is kept: %d", len(h.nodes))
	}
}
