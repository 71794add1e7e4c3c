package readonly

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Step is one reversible measure of an Incident. Do and Undo must be idempotent: both are repeated when the
// instance that ran them died half-way. They run one at a time, over all instances.
type Step struct {
	// Name names the step in answers.
	Name string
	// Before returns what the step finds, for its Undo, before Do is called for the first time: a queue that was paused
	// already is not to be resumed. It is kept as JSON with the state. A step whose Before fails is not begun, and so not
	// undone. Zero means that there is nothing to find.
	Before func(ctx context.Context) (any, error)
	// Do takes the measure and returns what it did.
	Do func(ctx context.Context) (any, error)
	// Undo takes it back. before is what Before returned, or nil.
	Undo func(ctx context.Context, before json.RawMessage) (any, error)
}

const (
	// stepTimeout bounds a step. An instance that is silent for longer has lost its claim on the steps.
	stepTimeout = 20 * time.Second
	stepLease   = stepTimeout + 10*time.Second
	// headStart is the time in which whoever was asked, or has done the last step, goes on before another instance does: the
	// answer is to tell of all steps.
	headStart = 3 * time.Second
	// retryEnding is how long a failed undo rests before it is tried again by itself.
	retryEnding = 10 * time.Second
	maxBefore   = 16 << 10 // bytes
)

// Incident is read-only mode and further steps as one: begun together, undone together, from any instance.
type Incident struct {
	mode  *Switch
	steps []Step
	asked atomic.Int32 // calls that do what Run would do
}

// NewIncident bundles mode with steps. Every instance has the same steps, in the same order.
func NewIncident(mode *Switch, steps ...Step) (*Incident, error) {
	var errs []error
	if mode == nil {
		errs = append(errs, errors.New("readonly: an incident needs a Switch"))
	}
	for i, step := range steps {
		if step.Name == "" || step.Do == nil || step.Undo == nil {
			errs = append(errs, fmt.Errorf("readonly: step %d of an incident needs a name, Do and Undo", i))
		}
	}
	return &Incident{mode: mode, steps: steps}, errors.Join(errs...)
}

// IncidentReport tells how each part went.
type IncidentReport struct {
	// ReadOnly is the mode after the change.
	ReadOnly Report `json:"read_only"`
	// Steps are those that ran for this answer, in their order.
	Steps []StepReport `json:"steps"`
	// Complete is false when a step failed, or another instance is still at it after a few seconds; the call may be repeated.
	Complete bool `json:"complete"`
	// DryRun says that nothing was done.
	DryRun bool `json:"dry_run"`
}

// StepReport tells how one step went.
type StepReport struct {
	// Name is the step's.
	Name string `json:"name"`
	// Result is what the step returned.
	Result any `json:"result,omitempty"`
	// Error is why it failed.
	Error string `json:"error,omitempty"`
}

// Begin enables the mode, then runs every step, going on after a failed one: half the relief is better than none,
// and the report says which half. It fails only when the mode itself could not be changed, or when the store or ctx ends in
// between: Run goes on with the rest. At c.Until, if it is given, writes are allowed again and the steps are undone by any
// instance whose Run runs. When this one dies before the last step another goes on.
func (i *Incident) Begin(ctx context.Context, c Change) (IncidentReport, error) {
	i.asked.Add(1)
	defer i.asked.Add(-1)
	c.incident = true
	if _, err := i.mode.Enable(ctx, c); err != nil {
		return IncidentReport{}, err
	}
	return i.report(ctx)
}

// End undoes the steps that were begun, in reverse, and then allows writes again. When a step could not be undone the mode
// stays as it is, still marked as an incident, so that the call can be repeated; Run repeats it too. Without an incident it changes
// nothing.
func (i *Incident) End(ctx context.Context, actor string) (IncidentReport, error) {
	i.asked.Add(1)
	defer i.asked.Add(-1)
	if err := i.ending(ctx, actor); err != nil {
		return IncidentReport{}, err
	}
	return i.report(ctx)
}

func (i *Incident) report(ctx context.Context) (IncidentReport, error) {
	steps, err := i.work(ctx, i.mode.options.AckWait+headStart)
	if err != nil {
		return IncidentReport{Steps: steps}, err
	}
	report := IncidentReport{Steps: steps}
	if state, _ := i.mode.State(); state.Incident {
		report.Complete = state.Relief.Phase == "begun" && len(state.Relief.Failed) == 0
	} else {
		report.Complete = true
	}
	report.ReadOnly, err = i.mode.Report(ctx)
	return report, err
}

// Run ends the incident at its time, and goes on with steps whose instance has died, until ctx ends.
func (i *Incident) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		state, _ := i.mode.State()
		if !state.Incident || i.asked.Load() > 0 {
			continue
		}
		err := error(nil)
		if state.Relief.Phase != "ending" && !state.Until.IsZero() && !time.Now().Before(state.Until) {
			err = i.ending(ctx, i.mode.options.Instance)
		}
		if err == nil {
			_, err = i.work(ctx, 0)
		}
		if err != nil && ctx.Err() == nil {
			i.mode.failed("incident", err)
		}
	}
}
