package queue

import "time"

// ScaleInputs is all that a decision is made from, beside the rule and the state. A log of them can be replayed.
type ScaleInputs struct {
	// At is Redis's clock, so that a new leader goes on where the last one stopped.
	At time.Time `json:"at"`
	// Known is false when the queue could not be read. Everything then holds.
	Known bool `json:"known"`
	// Due jobs could run now: they wait, or their time has come.
	Due int `json:"due"`
	// Active jobs run.
	Active int `json:"active"`
	// OldestSeconds is the age of the oldest waiting job; null when unknown. It explains, and decides nothing.
	OldestSeconds *float64 `json:"oldest_waiting_seconds"`
	// Arrived counts the jobs that ever became due: ended attempts, due and active jobs together. Differences of it
	// are arrivals, whoever enqueued them.
	Arrived int64 `json:"arrived_total"`
	// Runs attempts ended in the last 20 to 30 seconds, and took RunSeconds each on average.
	Runs       int64   `json:"runs"`
	RunSeconds float64 `json:"run_mean_seconds"`
	// Workers live, and have Slots in all.
	Workers int `json:"workers_live"`
	Slots   int `json:"slots_live"`
	// MaxStartsPerSecond is what the queue's Rate allows; 0 when there is no limit.
	MaxStartsPerSecond float64 `json:"max_starts_per_second"`
	// Paused says that no job is started, so that more workers cannot help.
	Paused bool `json:"paused"`
	// Bottleneck names what the jobs need and what is saturated, so that more workers would only hurt it; "" when
	// nothing is.
	Bottleneck string `json:"bottleneck"`
}

// Reason says why a decision is what it is.
type Reason string

// The reasons of a decision.
const (
	// ReasonUnknown holds, because something could not be measured.
	ReasonUnknown Reason = "unknown"
	// ReasonPaused holds, because the queue starts nothing.
	ReasonPaused Reason = "paused"
	// ReasonSaturated holds, because what jobs need is saturated.
	ReasonSaturated Reason = "saturated"
	// ReasonLimited means that the queue's rate keeps no more workers busy.
	ReasonLimited Reason = "limited"

	// ReasonAbove, ReasonBelow and ReasonBetween are of a rule by depth.
	ReasonAbove   Reason = "above"
	ReasonBelow   Reason = "below"
	ReasonBetween Reason = "between"

	// ReasonLoad means more workers for the load, ReasonSurplus fewer, and ReasonSteady that the load fits, within 10 %.
	ReasonLoad    Reason = "load"
	ReasonSurplus Reason = "surplus"
	ReasonSteady  Reason = "steady"
	// ReasonStep means that this step goes only part of the way: to the double, or to the half.
	ReasonStep Reason = "step"
	// ReasonWindow holds, because more were needed at some time in the last 5 minutes.
	ReasonWindow Reason = "window"
	// ReasonMinimum and ReasonMaximum mean that the rule's bound was reached.
	ReasonMinimum Reason = "minimum"
	ReasonMaximum Reason = "maximum"
)

// ScaleLoad is what a decision derived from its inputs and the ones before.
type ScaleLoad struct {
	// ArrivalsPerSecond is over the last 60 seconds; -1 until a second was seen.
	ArrivalsPerSecond float64 `json:"arrivals_per_second"`
	// RunSeconds is the smoothed mean run time; 0 when unknown.
	RunSeconds float64 `json:"run_seconds"`
	// SlotsPerWorker is how many jobs one worker runs at the same time.
	SlotsPerWorker float64 `json:"slots_per_worker"`
	// Starting workers have been asked for and do not live yet. They count as if they did.
	Starting int `json:"workers_starting"`
	// Backlog is the due jobs, less those that starting workers would have done by now.
	Backlog float64 `json:"backlog"`
	// Need is the workers that the formula asks for, with fraction. 0 by depth.
	Need float64 `json:"need"`
}

// ScaleStages is the wanted number after each stage, in their order: where it changes, that stage has changed it.
type ScaleStages struct {
	// Asked is the rule's or the formula's number, Limited what the queue's rate keeps busy of it, Bounded that within
	// Min and Max.
	Asked   int `json:"asked"`
	Limited int `json:"limited"`
	Bounded int `json:"bounded"`
	// Held is after the dead band, the window, pauses and bottlenecks, Stepped after the bound of a step.
	Held    int `json:"held"`
	Stepped int `json:"stepped"`
}

// Decision is what a rule wants, and why.
type Decision struct {
	// Queue is the rule's queue.
	Queue string `json:"queue"`
	// Generation numbers the calls of the fleet's hooks. It only grows, and no two calls have the same: a receiver that
	// has seen a higher one must refuse. 0 until the decision was stored.
	Generation int64 `json:"generation"`
	// Workers is the wanted number, absolute. It is -1 while none was ever wanted.
	Workers int `json:"workers"`
	// Previous is the number wanted before, or -1.
	Previous int `json:"previous"`
	// Reason says why.
	Reason Reason `json:"reason"`
	// DryRun says that no hook is called.
	DryRun bool `json:"dry_run"`
	// Stages, Load, Inputs and Rule are what it was made of.
	Stages ScaleStages `json:"stages"`
	Load   ScaleLoad   `json:"load"`
	Inputs ScaleInputs `json:"inputs"`
	Rule   ScaleRule   `json:"rule"`
}

// Changed reports whether another number is wanted than before.
func (d Decision) Changed() bool { return d.Workers != d.Previous }
