package readonly

import (
	"context"
	"errors"
	"fmt"
)

// Step is one reversible measure of an Incident. Do and Undo must be idempotent: both are repeated when the
// instance that ran them died half-way.
type Step struct {
	// Name names the step in answers.
	Name string
	// Do takes the measure and returns what it did.
	Do func(ctx context.Context) (any, error)
	// Undo takes it back.
	Undo func(ctx context.Context) (any, error)
}

// Incident is read-only mode and further steps as one: begun together, undone together, from any instance.
type Incident struct {
	mode  *Switch
	steps []Step
}

// NewIncident bundles mode with steps.
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
	// Steps are in the order in which they ran.
	Steps []StepReport `json:"steps"`
	// Complete is false when a step failed; the call may be repeated.
	Complete bool `json:"complete"`
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
// and the report says which half. It fails only when the mode itself could not be changed. It does not end by itself,
// because the steps have to be undone: c.Until must be zero.
func (i *Incident) Begin(ctx context.Context, c Change) (IncidentReport, error) {
	if !c.Until.IsZero() {
		return IncidentReport{}, errors.New("readonly: an incident ends by End only, leave Until out")
	}
	c.incident = true
	mode, err := i.mode.Enable(ctx, c)
	if err != nil {
		return IncidentReport{}, err
	}
	report := IncidentReport{ReadOnly: mode, Complete: true}
	for _, step := range i.steps {
		report.add(step.Name, step.Do)(ctx)
	}
	return report, nil
}

// End undoes the steps in reverse and then allows writes again. When a step could not be undone the mode stays as
// it is, still marked as an incident, so that the call can be repeated.
func (i *Incident) End(ctx context.Context, actor string) (IncidentReport, error) {
	report := IncidentReport{Complete: true}
	for n := len(i.steps) - 1; n >= 0; n-- {
		report.add(i.steps[n].Name, i.steps[n].Undo)(ctx)
	}
	var err error
	if report.Complete {
		report.ReadOnly, err = i.mode.Disable(ctx, actor)
	} else {
		report.ReadOnly, err = i.mode.Report(ctx)
	}
	return report, err
}

func (r *IncidentReport) add(name string, run func(context.Context) (any, error)) func(context.Context) {
	return func(ctx context.Context) {
		result, err := run(ctx)
		step := StepReport{Name: name, Result: result}
		if err != nil {
			step.Error = err.Error()
			r.Complete = false
		}
		r.Steps = append(r.Steps, step)
	}
}
