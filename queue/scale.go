package queue

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// ScaleRule says how many workers a queue wants. It is data, and Decide is a pure function of it: the same inputs in
// the same order give the same decisions.
//
// By depth (Above is set): more than Above due jobs want Up workers, fewer than Below want Down, and in between the
// number stays. By latency (Latency is set): as many workers as arrivals, backlog and run time ask for by Little's law.
type ScaleRule struct {
	// Queue is the queue that is looked at. It is required.
	Queue string `json:"queue"`
	// Above is the depth over which Up workers are wanted. It is required unless Latency is set.
	Above int `json:"above,omitempty"`
	// Up is the number of workers over Above. It is required unless Latency is set.
	Up int `json:"up,omitempty"`
	// Below is the depth under which Down workers are wanted. Zero means that workers are never taken away.
	Below int `json:"below,omitempty"`
	// Down is the number of workers under Below. Zero means none.
	Down int `json:"down,omitempty"`

	// Latency is the time within which a backlog is to be gone, 1s to 1h. Zero means that the rule goes by depth.
	Latency time.Duration `json:"latency_ns,omitempty"`
	// Utilisation is the share of its slots' time that a worker is to be busy with arrivals, 0.1 to 1; the rest is
	// room for bursts. Zero means 0.8.
	Utilisation float64 `json:"utilisation,omitempty"`
	// Slots is how many jobs of this queue one worker runs at the same time. Zero means what living workers report,
	// and 10 until one has.
	Slots int `json:"slots,omitempty"`
	// Run is the mean run time that is assumed until a job has ended. Zero means that the number holds until then,
	// but is at least 1 when jobs are due.
	Run time.Duration `json:"run_ns,omitempty"`
	// Startup is how long a worker may take from the call of the hook until it works; until then it counts as if it
	// worked. Zero means 60s.
	Startup time.Duration `json:"startup_ns,omitempty"`
	// Min and Max bound the number of workers. Max is required with Latency: it is what the servers behind the workers
	// can bear. Zero for Min means that an idle queue may have no worker.
	Min int `json:"min,omitempty"`
	Max int `json:"max,omitempty"`
}

const (
	defaultUtilisation = 0.8
	defaultSlots       = 10
	defaultStartup     = time.Minute
	mostWorkers        = 100_000
)

func (r ScaleRule) validate() error {
	if r.Latency != 0 {
		return r.validateLatency()
	}
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("queue: ScaleRule of %q has "+format, append([]any{clip(r.Queue)}, args...)...))
	}
	if r.Above < 1 || r.Below < 0 || r.Below > r.Above {
		wrong("Above %d and Below %d, want Above at least 1 and Below from 0 to Above, or Latency in place of them", r.Above, r.Below)
	}
	if r.Up < 1 || r.Up > mostWorkers || r.Down < 0 || r.Down > r.Up {
		wrong("Up %d and Down %d, want Up from 1 to %d and Down from 0 to Up", r.Up, r.Down, mostWorkers)
	}
	if r.Utilisation != 0 || r.Run != 0 || r.Startup != 0 || r.Min != 0 || r.Max != 0 {
		wrong("Utilisation, Run, Startup, Min or Max without Latency: Up and Down are its bounds, leave them out")
	}
	if r.Slots < 0 || r.Slots > mostWorkers {
		wrong("Slots %d, want 0 to %d", r.Slots, mostWorkers)
	}
	return errors.Join(errs...)
}

func (r ScaleRule) validateLatency() error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("queue: ScaleRule of %q has "+format, append([]any{clip(r.Queue)}, args...)...))
	}
	if r.Latency < time.Second || r.Latency > time.Hour {
		wrong("Latency %v, want 1s to 1h", r.Latency)
	}
	if r.Above != 0 || r.Up != 0 || r.Below != 0 || r.Down != 0 {
		wrong("both Latency and Above, Up, Below or Down: choose one of the two ways")
	}
	if r.Utilisation != 0 && !(r.Utilisation >= 0.1 && r.Utilisation <= 1) {
		wrong("Utilisation %v, want 0.1 to 1", r.Utilisation)
	}
	if r.Slots < 0 || r.Slots > mostWorkers || r.Run < 0 || r.Startup < 0 || r.Startup > time.Hour {
		wrong("Slots %d, Run %v and Startup %v, want 0 to %d slots, none below zero, and Startup at most 1h", r.Slots, r.Run, r.Startup, mostWorkers)
	}
	if r.Min < 0 || r.Max < 1 || r.Max < r.Min || r.Max > mostWorkers {
		wrong("Min %d and Max %d, want 0 <= Min <= Max and Max from 1 to %d", r.Min, r.Max, mostWorkers)
	}
	return errors.Join(errs...)
}

// Decide applies the rule to what is known now. s is what the previous call returned, or the zero value. It holds when
// something is unknown: it never scales down because it cannot see.
func (r ScaleRule) Decide(s ScaleState, in ScaleInputs) (Decision, ScaleState) {
	d := Decision{Queue: r.Queue, Previous: -1, Rule: r, Inputs: in}
	if s.Decided {
		d.Previous = s.Workers
	}
	d.Workers = d.Previous
	elapsed := s.observe(in)
	d.Load = s.load(r, in)
	if r.Latency > 0 {
		r.byLatency(&d, &s, elapsed)
	} else {
		r.byDepth(&d)
	}
	if d.Workers >= 0 {
		if !s.Decided || d.Workers > s.Workers {
			s.Raised = s.Seen
		}
		s.Decided, s.Workers = true, d.Workers
	}
	return d, s
}

func (r ScaleRule) byDepth(d *Decision) {
	in := &d.Inputs
	want := d.Previous
	d.Reason = ReasonBetween
	switch {
	case !in.Known:
		d.Reason = ReasonUnknown
	case in.Due > r.Above:
		want, d.Reason = r.Up, ReasonAbove
	case in.Due < r.Below:
		want, d.Reason = r.Down, ReasonBelow
	}
	d.Stages = ScaleStages{Asked: want, Limited: want, Bounded: want, Held: want, Stepped: want}
	if d.Reason == ReasonAbove && want > d.Previous {
		d.raise(want)
	}
	d.Workers = d.Stages.Stepped
}

// raise is a rule's wish for more workers, less what more workers cannot change.
func (d *Decision) raise(want int) {
	if most, ok := d.mostUseful(); ok && want > most {
		want, d.Reason = max(most, d.Previous, d.Rule.Down), ReasonLimited
	}
	d.Stages.Limited, d.Stages.Bounded = want, want
	if reason := d.blocked(); reason != "" {
		want, d.Reason = d.Previous, reason
	}
	d.Stages.Held, d.Stages.Stepped = want, want
}

// mostUseful is the number of workers that the queue's rate keeps busy; more of them cannot start a job sooner.
func (d *Decision) mostUseful() (int, bool) {
	if d.Inputs.MaxStartsPerSecond <= 0 || d.Load.RunSeconds <= 0 {
		return 0, false
	}
	return max(1, ceil(d.Inputs.MaxStartsPerSecond*d.Load.RunSeconds/d.Load.SlotsPerWorker)), true
}

// blocked says why more workers would do no good.
func (d *Decision) blocked() Reason {
	switch {
	case d.Inputs.Paused:
		return ReasonPaused
	case d.Inputs.Bottleneck != "":
		return ReasonSaturated
	default:
		return ""
	}
}

// ceil rounds up what is more than a rounding error above a whole number.
func ceil(x float64) int { return int(math.Ceil(min(x, mostWorkers) - 1e-9)) }
