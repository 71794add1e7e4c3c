package queue

import (
	"errors"
	"fmt"
)

// ScaleRule says how many workers a queue wants by its depth: more than Above waiting jobs want Up workers, fewer
// than Below want Down, and in between the number stays.
type ScaleRule struct {
	// Queue is the queue whose waiting jobs are counted. It is required.
	Queue string
	// Above is the depth over which Up workers are wanted. It is required.
	Above int
	// Up is the number of workers over Above. It is required.
	Up int
	// Below is the depth under which Down workers are wanted. Zero means that workers are never taken away.
	Below int
	// Down is the number of workers under Below. Zero means none.
	Down int
}

func (r ScaleRule) validate() error {
	var errs []error
	if r.Above < 1 || r.Below < 0 || r.Below > r.Above {
		errs = append(errs, fmt.Errorf("queue: ScaleRule of %q has Above %d and Below %d, want Above at least 1 and Below from 0 to Above", clip(r.Queue), r.Above, r.Below))
	}
	if r.Up < 1 || r.Down < 0 || r.Down > r.Up {
		errs = append(errs, fmt.Errorf("queue: ScaleRule of %q has Up %d and Down %d, want Up at least 1 and Down from 0 to Up", clip(r.Queue), r.Up, r.Down))
	}
	return errors.Join(errs...)
}

// Depth is what a rule looks at.
type Depth struct {
	// Waiting is the number of jobs that could run now.
	Waiting int
	// Known is false when the depth could not be read. A rule then holds.
	Known bool
}

// Reason says why a decision is what it is.
type Reason string

// The reasons of a rule.
const (
	ReasonAbove   Reason = "above"
	ReasonBelow   Reason = "below"
	ReasonBetween Reason = "between"
	ReasonUnknown Reason = "unknown"
)

// Decision is what a rule wants.
type Decision struct {
	// Queue is the rule's queue.
	Queue string `json:"queue"`
	// Workers is the wanted number, absolute. It is -1 while none was ever wanted.
	Workers int `json:"workers"`
	// Previous is the number wanted before, or -1.
	Previous int `json:"previous"`
	// Depth is what was looked at.
	Depth Depth `json:"depth"`
	// Reason says why.
	Reason Reason `json:"reason"`
}

// Changed reports whether another number is wanted than before.
func (d Decision) Changed() bool { return d.Workers != d.Previous }

// Decide applies the rule. current is the number wanted so far, or -1 when there is none yet. It holds in between,
// and when the depth is unknown: it never scales down because it cannot see.
func (r ScaleRule) Decide(current int, depth Depth) Decision {
	d := Decision{Queue: r.Queue, Workers: current, Previous: current, Depth: depth, Reason: ReasonBetween}
	switch {
	case !depth.Known:
		d.Reason = ReasonUnknown
	case depth.Waiting > r.Above:
		d.Workers, d.Reason = r.Up, ReasonAbove
	case depth.Waiting < r.Below:
		d.Workers, d.Reason = r.Down, ReasonBelow
	}
	return d
}
