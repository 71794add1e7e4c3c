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
	return Relief{Phase: phase, Next: next, Before: r.Before, Skipped: r.Skipped, Owner: r.Owner, Lease: r.Lease}
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
		for r.Phase == "ending" && r.Next > 0 && !r.begun(i.due(r)) {
			r.Next-- // nothing was done that could be undone
		}
		state.Relief.Next = r.Next
		if r.Phase == "beginning" && r.Next >= len(i.steps) || r.Phase == "ending" && r.Next == 0 {
			if _, err := i.mode.put(ctx, state, i.finished(state)); err != nil {
				return steps, err
			}
			if r.Phase == "ending" && len(r.Failed) > 0 {
				return steps, nil
			}
			continue
		}
		found, blind := i.look(ctx, r)
		if ctx.Err() != nil {
			break // it may see another time
		}
		claimed, err := i.claim(ctx, state, found, blind != nil)
		if err != nil || claimed == nil {
			if err != nil {
				return steps, err
			}
			continue // somebody was faster
		}
		step := StepReport{Name: i.steps[i.due(r)].Name}
		if err = blind; err == nil {
			step.Result, err = i.step(ctx, claimed.Relief)
		}
		if err != nil {
			step.Error = err.Error()
		}
		steps = append(steps, step)
		if err := i.done(ctx, claimed.Relief, step); err != nil {
			return steps, err
		}
	}
	return steps, context.Cause(ctx)
}

// look finds what the step that is due is about to change, if that is still to be found.
func (i *Incident) look(ctx context.Context, r Relief) (found json.RawMessage, err error) {
	if r.Phase != "beginning" || r.begun(r.Next) || i.steps[r.Next].Before == nil {
		return json.RawMessage("null"), nil
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	value, err := i.steps[r.Next].Before(ctx)
	if err == nil {
		found, err = json.Marshal(value)
	}
	if err == nil && len(found) > maxBefore {
		err = fmt.Errorf("readonly: it found %d bytes, which are more than %d", len(found), maxBefore)
	}
	if err != nil {
		return json.RawMessage("null"), fmt.Errorf("readonly: it cannot see what it would change, so it was not begun: %w", err)
	}
	return found, nil
}

// due is the step that is to be done or undone next.
func (i *Incident) due(r Relief) int {
	if r.Phase == "beginning" {
		return r.Next
	}
	return min(r.Next, len(i.steps)) - 1
}

// begun reports whether a step was begun, so that there is something to undo.
func (r Relief) begun(step int) bool {
	return step >= 0 && step < len(r.Before) && !slices.Contains(r.Skipped, step)
}

// claim makes the step that is due this instance's, together with what is found before it.
func (i *Incident) claim(ctx context.Context, state State, found json.RawMessage, blind bool) (*State, error) {
	next := state
	r, n := &next.Relief, state.Relief.Next
	r.keep(i.mode.options.Instance, stepLease)
	if r.Phase == "beginning" && !r.begun(n) {
		r.Before = slices.Clone(r.Before)
		if n == len(r.Before) {
			r.Before = append(r.Before, nil)
		}
		r.Before[n] = found
		r.Skipped = slices.DeleteFunc(slices.Clone(r.Skipped), func(step int) bool { return step == n })
		if blind {
			r.Skipped = append(r.Skipped, n)
		}
	}
	won, err := i.mode.put(ctx, state, next)
	if !won {
		return nil, err
	}
	return &next, nil
}

// step does or undoes the one that is due, for no longer than its claim lasts.
func (i *Incident) step(ctx context.Context, r Relief) (result any, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	n := i.due(r)
	if r.Phase == "beginning" {
		return i.steps[n].Do(ctx)
	}
	before := r.Before[n]
	if string(before) == "null" {
		before = nil
	}
	return i.steps[n].Undo(ctx, before)
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
