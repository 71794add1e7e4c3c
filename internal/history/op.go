package history

import (
	"fmt"
	"time"
)

// Kind tells reads from writes.
type Kind uint8

// The kinds of operations.
const (
	Read  Kind = iota // of a counter's value
	Write             // of the next value: value = value + 1
)

// Outcome is what the client knows of an operation's end.
type Outcome uint8

// The outcomes.
const (
	OK      Outcome = iota // acknowledged
	Unknown                // no answer, or one that says so: it happened once, or not, or will happen
	Failed                 // nothing was written, the answer says
)

// Op is one operation as its client saw it.
type Op struct {
	Kind    Kind
	Outcome Outcome
	Key     int64         // the counter
	Value   int64         // what was read, or what the write made of it; of no meaning unless OK
	Node    string        // the server that answered
	Via     string        // what carried the token
	Aside   bool          // a read whose reader could not tell the session what it saw, as a job's: later ones need not cover it
	Start   time.Duration // since the history began
	End     time.Duration
}

// String describes the operation.
func (o Op) String() string {
	verb := "read"
	if o.Kind == Write {
		verb = "wrote"
	}
	text := fmt.Sprintf("%s %d", verb, o.Value)
	if o.Outcome == Unknown {
		text = verb + ", outcome unknown,"
	} else if o.Outcome == Failed {
		text = verb + " in vain"
	}
	if o.Node != "" {
		text += " on " + o.Node
	}
	if o.Via != "" {
		text += " through " + o.Via
	}
	return fmt.Sprintf("%s (%.4f–%.4fs)", text, o.Start.Seconds(), o.End.Seconds())
}
