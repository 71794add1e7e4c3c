package readonly

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Report is what is known of a change at the moment of the answer.
type Report struct {
	State
	// Phase is "off", "announced" while instances are missing, "acknowledged" when all obey but writing requests that
	// began before are still in flight, and "drained" when none is. It says nothing of jobs or of the database.
	Phase string `json:"phase"`
	// Instances is the number of instances: those that were heard of in the last minute and have not said goodbye.
	Instances int `json:"instances"`
	// Acknowledged is how many of them obey this change.
	Acknowledged int `json:"acknowledged"`
	// Missing names those that do not, or have fallen silent: hung, cut off, or dead without telling.
	Missing []string `json:"missing,omitempty"`
	// InFlight is the number of writing requests that began before and have not ended.
	InFlight int64 `json:"in_flight"`
}

// await reports as soon as all have obeyed and drained, or when Options.AckWait is over.
func (s *Switch) await(ctx context.Context, state State) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.AckWait)
	defer cancel()
	s.acknowledge(ctx)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last Report
	for {
		report, err := s.Report(ctx)
		if err == nil {
			last = report
		}
		if report.Epoch > state.Epoch {
			return report, nil // somebody changed it again meanwhile: theirs holds
		}
		if err == nil && len(report.Missing) == 0 && report.InFlight == 0 {
			return report, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if last.Phase == "" {
				return Report{}, fmt.Errorf("readonly: epoch %d is stored, but who obeys it is unknown: %w", state.Epoch, context.Cause(ctx))
			}
			return last, nil
		}
	}
}

// Report tells the mode and which instances obey it.
func (s *Switch) Report(ctx context.Context) (Report, error) {
	acks, err := s.store.Acknowledged(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("readonly: the store does not answer, this instance keeps its last state: %w", err)
	}
	state, _ := s.State()
	report := Report{State: state, Phase: "off", Instances: len(acks)}
	for instance, ack := range acks {
		if !ack.obeys(state) || ack.Age > s.silence() {
			report.Missing = append(report.Missing, instance)
			continue
		}
		report.Acknowledged++
		report.InFlight += ack.InFlight
	}
	slices.Sort(report.Missing)
	if state.refuses(time.Now()) {
		switch {
		case len(report.Missing) > 0:
			report.Phase = "announced"
		case report.InFlight > 0:
			report.Phase = "acknowledged"
		default:
			report.Phase = "drained"
		}
	} else {
		report.Enabled = false
	}
	return report, nil
}
