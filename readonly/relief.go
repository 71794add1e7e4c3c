package readonly

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// ending turns the incident round: what was done is due to be undone.
func (i *Incident) ending(ctx context.Context, actor string) error {
	for {
		state, err := i.mode.current(ctx)
		if err != nil || !state.Incident {
			return err
		}
		next := state
		next.Actor = actor
		next.Relief = state.Relief.turned("ending", len(i.steps))
		if !next.Relief.claimed() {
			next.Relief.keep(i.mode.options.Instance, headStart)
		}
		if r := state.Relief; r.Phase == "ending" {
			next.Relief = r // on its way: whoever is at it goes on
			if r.Owner == "" {
				next.Relief.Lease = time.Time{} // it rests after a failure, and is asked for now
			}
		}
		if next.Equal(state) {
			return nil
		}
		if won, err := i.mode.put(ctx, state, next); won || err != nil {
			return err
		}
	}
}

// turned is a new phase. Whoever runs a step of the old one keeps the claim until that has ended: no step is done and undone
// at once.
func (r Relief) turned(phase string, next int) Relief {
	return Relief{Phase: phase, Next: next, Before: r.Before, Owner: r.Owner, Lease: r.Lease}
}

// claimed reports whether an instance is at it.
func (r Relief) claimed() bool { return r.Owner != "" && time.Now().Before(r.Lease) }

// keep claims what is due.
func (r *Relief) keep(instance string, d time.Duration) {
	r.Owner, r.Lease = instance, time.Now().Add(d).UTC().Truncate(time.Millisecond)
}

// work runs the steps that are due, unless another instance does: it waits as long as patience for that one to be done. What
// it is about to do is stored before, and what it has done after, so that another can go on from there.
func (i *Incident) work(ctx context.Context, patience time.Duration) (steps []StepReport, err error) {
	steps = []StepReport{}
	end := time.Now().Add(patience)
	for ctx.Err() == nil {
		changed := i.mode.Changed()
		state, err := i.mode.current(ctx)
		if err != nil {
			return steps, err
		}
		r := state.Relief
		due := r.Phase == "beginning" || r.Phase == "ending"
		elsewhere := r.Owner != i.mode.options.Instance && time.Now().Before(r.Lease)
		if !state.Incident || !due || elsewhere && !time.Now().Before(end) {
			return steps, nil
		}
		if elsewhere {
			i.mode.idle(ctx, changed, time.Until(end))
			continue
		}
		if r.Phase == "beginning" && r.Next >= len(i.steps) || r.Phase == "ending" && r.Next == 0 {
			if _, err := i.mode.put(ctx, state, i.finished(state)); err != nil {
				return steps, err
			}
			if r.Phase == "ending" && len(r.Failed) > 0 {
				return steps, nil
			}
			continue
		}
		claimed, err := i.claim(ctx, state)
		if err != nil || claimed == nil {
			if err != nil {
				return steps, err
			}
			continue // somebody was faster
		}
		step, err := i.step(ctx, claimed.Relief)
		steps = append(steps, step)
		if err == nil {
			err = i.done(ctx, claimed.Relief, step)
		}
		if err != nil {
			return steps, err
		}
	}
	return steps, context.Cause(ctx)
}

// claim makes the step that is due this instance's, together with what is found before it.
func (i *Incident) claim(ctx context.Context, state State) (*State, error) {
	next := state
	next.Relief.keep(i.mode.options.Instance, stepLease)
	n := state.Relief.Next
	if look := i.steps[min(n, len(i.steps)-1)].Before; next.Relief.Phase == "beginning" && len(next.Relief.Before) <= n {
		found := json.RawMessage("null")
		if look != nil {
			ctx, cancel := context.WithTimeout(ctx, stepTimeout)
			defer cancel()
			value, err := look(ctx)
			if err == nil {
				found, err = json.Marshal(value)
			}
			if err == nil && len(found) > maxBefore {
				err = fmt.Errorf("readonly: it found %d bytes, which are more than %d", len(found), maxBefore)
			}
			if err != nil {
				return nil, fmt.Errorf("readonly: step %s of the incident cannot see what it would change, so it was not begun: %w", i.steps[n].Name, err)
			}
		}
		next.Relief.Before = append(slices.Clone(next.Relief.Before), found)
	}
	won, err := i.mode.put(ctx, state, next)
	if !won {
		return nil, err
	}
	return &next, nil
}

// step does or undoes the one that is due, for no longer than its claim lasts.
func (i *Incident) step(ctx context.Context, r Relief) (StepReport, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	var result any
	var err error
	var step Step
	if r.Phase == "beginning" {
		step = i.steps[r.Next]
		result, err = step.Do(ctx)
	} else {
		step = i.steps[min(r.Next, len(i.steps))-1]
		var before json.RawMessage
		if n := r.Next - 1; n < len(r.Before) && string(r.Before[n]) != "null" {
			before = r.Before[n]
		}
		result, err = step.Undo(ctx, before)
	}
	report := StepReport{Name: step.Name, Result: result}
	if err != nil {
		report.Error = err.Error()
	}
	return report, nil
}

// done stores that the step was taken. When the claim is another's meanwhile, that one repeats it.
func (i *Incident) done(ctx context.Context, claimed Relief, step StepReport) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for {
		state, err := i.mode.current(ctx)
		r := state.Relief
		if err != nil || !state.Incident || r.Owner != claimed.Owner || !r.Lease.Equal(claimed.Lease) {
			return err
		}
		next := state
		next.Relief.Owner, next.Relief.Lease = "", time.Time{}
		if r.Phase == claimed.Phase {
			next.Relief.keep(claimed.Owner, headStart)
			if step.Error != "" {
				next.Relief.Failed = append(slices.Clone(r.Failed), step.Name)
			}
			next.Relief.Next++
			if r.Phase == "ending" {
				next.Relief.Next = r.Next - 1
			}
		}
		if won, err := i.mode.put(ctx, state, next); won || err != nil {
			return err
		}
	}
}

// finished is the state after the last step.
func (i *Incident) finished(state State) State {
	next := state
	r := &next.Relief
	r.Owner, r.Lease = "", time.Time{}
	now := time.Now().UTC().Truncate(time.Millisecond)
	switch {
	case r.Phase == "beginning":
		r.Phase = "begun"
	case len(r.Failed) > 0: // once more, later
		r.Next, r.Failed, r.Lease = len(i.steps), nil, now.Add(retryEnding)
	default:
		next = State{ID: rand.Text(), Actor: state.Actor, Source: Operator, Since: now}
		if !state.Until.IsZero() && !now.Before(state.Until) {
			next.Source, next.Reason = Automatic, "the incident's time was over"
		}
	}
	return next
}
