package readonly

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// ErrReadOnly is what every refused write is, by errors.Is.
var ErrReadOnly = errors.New("readonly: writes are refused")

// Tier is whose writes are refused.
type Tier string

const (
	// Off refuses none.
	Off Tier = "off"
	// Staff refuses those of everybody but staff, as Options.Staff knows them.
	Staff Tier = "staff"
	// Full refuses all.
	Full Tier = "full"
)

// Source is what made a change.
type Source string

const (
	// Operator is a person, or a program that asks for one.
	Operator Source = "operator"
	// Automatic is a Keeper.
	Automatic Source = "automatic"
)

// State is what all instances agree on.
type State struct {
	// Epoch goes up by one with every change. 0 means that nothing was ever set.
	Epoch uint64 `json:"epoch"`
	// ID tells two changes apart that were given the same epoch, because the store had lost the first one. It stays when
	// a lease is renewed in time or an incident's steps go on: these change nobody's obedience.
	ID string `json:"id,omitempty"`
	// Enabled says that writes are refused.
	Enabled bool `json:"enabled"`
	// Tier is whose. Zero means Full while Enabled.
	Tier Tier `json:"tier,omitempty"`
	// Tenants are those whose writes are refused. Zero means all.
	Tenants []string `json:"tenants,omitempty"`
	// Reason is shown to whoever is refused.
	Reason string `json:"reason,omitempty"`
	// Actor is who made the change.
	Actor string `json:"actor,omitempty"`
	// Source is what made it.
	Source Source `json:"source,omitempty"`
	// Since is when the change was made.
	Since time.Time `json:"since,omitzero"`
	// Until is when writes are allowed again without further ado. Zero means until somebody disables it.
	Until time.Time `json:"until,omitzero"`
	// Lease is when an automatic trip ends, unless a Keeper that still sees its cause renews it. Zero means never.
	Lease time.Time `json:"lease,omitzero"`
	// Incident says that an Incident holds the mode, so that its undo knows what to undo.
	Incident bool `json:"incident,omitempty"`
	// Relief is how far the incident's steps are.
	Relief Relief `json:"relief,omitzero"`
}

// Equal reports whether both are the same, field by field.
func (s State) Equal(other State) bool { return reflect.DeepEqual(s, other) }

// kept is s as a store gives it back. JSON tells no empty list from none, and has no text that is not UTF-8: compared with what
// is stored, such a state would for ever be another one.
func (s State) kept() (kept State, err error) {
	blob, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(blob, &kept)
	}
	if err != nil {
		return State{}, fmt.Errorf("readonly: nothing was changed, the state cannot be stored: %w", err)
	}
	return kept, nil
}

// refuses says whether writes are refused at now. Every instance compares with its own clock.
func (s State) refuses(now time.Time) bool {
	return s.Enabled && (s.Until.IsZero() || now.Before(s.Until)) && (s.Lease.IsZero() || now.Before(s.Lease))
}

// total says that nobody's writes are allowed, so that quiet can be proven.
func (s State) total() bool { return s.Tier != Staff && len(s.Tenants) == 0 }

// Relief is how far the steps of an Incident are, so that any instance can go on where another has stopped.
type Relief struct {
	// Phase is "beginning", "begun", "ending", or "" without an incident.
	Phase string `json:"phase,omitempty"`
	// Next is how many steps are done: of those to begin with, or of those still to be undone.
	Next int `json:"next,omitempty"`
	// Before is what each step found before it did anything, for its undo.
	Before []json.RawMessage `json:"before,omitempty"`
	// Skipped are the steps, counted from 0, that could not see what they would change, and so were not begun.
	// A next call of Begin tries them again.
	Skipped []int `json:"skipped,omitempty"`
	// Failed names the steps that failed in this phase.
	Failed []string `json:"failed,omitempty"`
	// Owner is the instance that runs the steps, until Lease has passed.
	Owner string    `json:"owner,omitempty"`
	Lease time.Time `json:"lease,omitzero"`
}

// RefusedError is the error of a refused write. It is ErrReadOnly.
type RefusedError struct {
	// State is what the instance obeyed. Its epoch is 0 when the instance does not know the state yet, or no
	// longer.
	State State
}

func (e *RefusedError) Error() string {
	if e.State.Epoch == 0 {
		return "readonly: writes are refused while this instance is not in step with the store of the read-only state, try again shortly"
	}
	text := fmt.Sprintf("readonly: writes are refused since %s", e.State.Since.UTC().Format(time.RFC3339))
	switch {
	case len(e.State.Tenants) > 0:
		text = strings.Replace(text, "writes", "some tenants' writes", 1)
	case e.State.Tier == Staff:
		text = strings.Replace(text, "writes", "all writes but those of staff", 1)
	}
	if e.State.Reason != "" {
		text += " (" + e.State.Reason + ")"
	}
	if !e.State.Until.IsZero() {
		return text + ", try again after " + e.State.Until.UTC().Format(time.RFC3339)
	}
	return text + ", try again later"
}

// Is makes errors.Is(err, ErrReadOnly) true.
func (e *RefusedError) Is(target error) bool { return target == ErrReadOnly }
