package readonly

import (
	"errors"
	"fmt"
	"time"
)

// ErrReadOnly is what every refused write is, by errors.Is.
var ErrReadOnly = errors.New("readonly: writes are refused")

// State is what all instances agree on.
type State struct {
	// Epoch goes up by one with every change. 0 means that nothing was ever set.
	Epoch uint64 `json:"epoch"`
	// ID tells two changes apart that were given the same epoch, because the store had lost the first one.
	ID string `json:"id,omitempty"`
	// Enabled says that writes are refused.
	Enabled bool `json:"enabled"`
	// Reason is shown to whoever is refused.
	Reason string `json:"reason,omitempty"`
	// Actor is who made the change.
	Actor string `json:"actor,omitempty"`
	// Since is when the change was made.
	Since time.Time `json:"since,omitzero"`
	// Until is when writes are allowed again without further ado. Zero means until somebody disables it.
	Until time.Time `json:"until,omitzero"`
	// Incident says that an Incident holds the mode, so that its undo knows what to undo.
	Incident bool `json:"incident,omitempty"`
}

// refuses says whether writes are refused at now. Every instance compares Until with its own clock.
func (s State) refuses(now time.Time) bool {
	return s.Enabled && (s.Until.IsZero() || now.Before(s.Until))
}

// RefusedError is the error of a refused write. It is ErrReadOnly.
type RefusedError struct {
	// State is what the instance obeyed. Its epoch is 0 when the instance does not know the state yet.
	State State
}

func (e *RefusedError) Error() string {
	if e.State.Epoch == 0 {
		return "readonly: writes are refused until this instance has reached the store of the read-only state, try again shortly"
	}
	text := fmt.Sprintf("readonly: writes are refused since %s", e.State.Since.UTC().Format(time.RFC3339))
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
