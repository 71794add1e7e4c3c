package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Promise is what a violation breaks.
type Promise uint8

// The promises.
const (
	ReadYourWrites Promise = iota
	MonotonicReads
	MonotonicWrites
	WritesFollowReads
	LostUpdate
	DoubleApply
	Phantom   // a row that nobody wrote, or whose write has failed
	Malformed // the history is none: a counter has two writers, or a session's operations are not in order
	promises
)

// String names the promise.
func (p Promise) String() string {
	return [...]string{
		"read-your-writes", "monotonic-reads", "monotonic-writes", "writes-follow-reads", "lost-update", "double-apply",
		"phantom", "malformed",
	}[p]
}

// Violation is the shortest history that breaks a promise: two operations, the later of which contradicts the earlier.
type Violation struct {
	Promise Promise
	Session string
	Key     string
	Before  Op
	After   Op
	Note    string // what operations cannot tell
}

// String tells the history.
func (v Violation) String() string {
	text := fmt.Sprintf("%s: %s, key %s:", v.Promise, v.Session, v.Key)
	if v.Before != (Op{}) {
		text += " " + v.Before.String() + ";"
	}
	if v.After != (Op{}) {
		text += " then " + v.After.String() + ";"
	}
	if v.Note != "" {
		text += " " + v.Note
	}
	return text
}

// span is how long the violation took: the shortest one is the easiest to understand.
func (v Violation) span() time.Duration { return v.After.End - v.Before.Start }

// found counts violations and keeps the shortest of each promise.
type found struct {
	counts   [promises]int
	shortest [promises]Violation
}

func (f *found) add(v Violation) {
	if f.counts[v.Promise] == 0 || v.span() < f.shortest[v.Promise].span() {
		f.shortest[v.Promise] = v
	}
	f.counts[v.Promise]++
}

func (f *found) merge(other *found) {
	for p, n := range other.counts {
		if n > 0 {
			f.add(other.shortest[p])
			f.counts[p] += n - 1
		}
	}
}

// list returns the shortest violation of each broken promise, the shortest first.
func (f *found) list() []Violation {
	var all []Violation
	for p, n := range f.counts {
		if n > 0 {
			all = append(all, f.shortest[p])
		}
	}
	slices.SortStableFunc(all, func(a, b Violation) int { return cmp.Compare(a.span(), b.span()) })
	return all
}
