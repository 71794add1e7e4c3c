package readonly

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// The phases of a change, in their order. Each includes those before it.
const (
	// PhaseOff is that writes are not refused.
	PhaseOff = "off"
	// PhaseAnnounced is that the change is stored and instances are missing that have to obey it.
	PhaseAnnounced = "announced"
	// PhaseAcknowledged is that all obey; what began before is being drained.
	PhaseAcknowledged = "acknowledged"
	// PhaseDrained is that nothing of this service that began before is under way: no request, and with tier Full no job
	// and no connection. The database is being asked.
	PhaseDrained = "drained"
	// PhaseHeld is that the database has proven to be quiet as well. Only tier Full, for all tenants, comes to it.
	PhaseHeld = "held"
)

// Report is what is known of a change at the moment of the answer.
type Report struct {
	State
	// Phase is how far the change has come.
	Phase string `json:"phase"`
	// Provable says that Phase can come to "held": there is a Witness, and nobody's writes are allowed.
	Provable bool `json:"provable"`
	// Held is that Phase is "held": a proof that this service writes nothing.
	Held bool `json:"held"`
	// Instances is the number of instances: those that were heard of in the last minute and have not said goodbye. In the first three
	// polls after a change they are those of the last day, because the store's clock may have been set.
	Instances int `json:"instances"`
	// Acknowledged is how many of them obey this change.
	Acknowledged int `json:"acknowledged"`
	// Missing names those that do not, or have fallen silent: hung, cut off, or dead without telling.
	Missing []string `json:"missing,omitempty"`
	// InFlight is the number of writing requests that began before and have not ended, Jobs that of running jobs that may
	// write, and Connections that of database connections in use that may.
	InFlight    int64 `json:"in_flight"`
	Jobs        int64 `json:"jobs"`
	Connections int64 `json:"connections"`
	// Database is what it was seen to do, once all have drained. It is nil before, and without a Witness.
	Database *Proof `json:"database,omitempty"`
	// By lists what each instance has said.
	By []InstanceReport `json:"by_instance"`
}

// InstanceReport is what one instance has said.
type InstanceReport struct {
	// Instance is its name.
	Instance string `json:"instance"`
	// Obeys says that it obeys the change.
	Obeys bool `json:"obeys"`
	// Epoch is that of the state which it obeys.
	Epoch uint64 `json:"epoch"`
	// AgeSeconds is how long ago it said so, by the store's clock.
	AgeSeconds float64 `json:"age_seconds"`
	// InFlight, Jobs and Connections are as in Report.
	InFlight    int64 `json:"in_flight"`
	Jobs        int64 `json:"jobs"`
	Connections int64 `json:"connections"`
}

// settled says that waiting longer shows nothing new.
func (s *Switch) settled(r Report) bool {
	switch {
	case r.Phase == PhaseDrained:
		return !r.Provable
	case r.Phase == PhaseOff:
		return len(r.Missing) == 0
	}
	return r.Held
}

// What instances acknowledge is looked at soon, because most answer at once, and then less and less often.
const (
	firstLook = time.Millisecond
	lastLook  = 20 * time.Millisecond
)

// await reports as soon as nothing more is to come, or when Options.AckWait is over.
func (s *Switch) await(ctx context.Context, state State) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.AckWait)
	defer cancel()
	s.acknowledge(ctx)
	var last Report
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		report, err := s.Report(ctx)
		if err == nil {
			last = report
		}
		if report.Epoch > state.Epoch && report.ID != state.ID {
			return report, nil // somebody changed it again meanwhile: theirs holds
		}
		if err == nil && s.settled(report) {
			return report, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			if last.Phase == "" {
				return Report{}, fmt.Errorf("readonly: epoch %d is stored, but who obeys it is unknown: %w", state.Epoch, context.Cause(ctx))
			}
			return last, nil
		}
	}
}

// Report tells the mode, which instances obey it, and how much of a proof there is.
func (s *Switch) Report(ctx context.Context) (Report, error) {
	acks, err := s.store.Acknowledged(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("readonly: the store does not answer, this instance keeps its last state: %w", err)
	}
	state, _ := s.State()
	if own, known := acks[s.options.Instance]; known {
		// Nobody knows better than this instance what it does. What it has said says how old its word to others is.
		if now, _ := s.ack(); now.Epoch >= own.Epoch {
			now.Age = own.Age
			acks[s.options.Instance] = now
		}
	}
	report := Report{State: state, Phase: PhaseOff, By: []InstanceReport{}}
	refuses := state.refuses(time.Now())
	obeyed := state
	if state.Enabled && !refuses {
		obeyed.ID = "" // as those say for whom it is over, too
	}
	for instance, ack := range acks {
		if old := ack.Age.Abs() > forgotten; !old || refuses && s.doubtful() {
			report.add(instance, ack, obeyed, s.silence())
		}
	}
	slices.Sort(report.Missing)
	slices.SortFunc(report.By, func(a, b InstanceReport) int {
		if a.Instance < b.Instance {
			return -1
		}
		return 1
	})
	if !refuses {
		report.Enabled, report.Tier = false, Off
		return report, nil
	}
	if report.Tier == "" {
		report.Tier = Full
	}
	report.Provable = s.options.Witness != nil && state.total()
	switch {
	case len(report.Missing) > 0 || report.Acknowledged == 0:
		report.Phase = PhaseAnnounced
	case report.InFlight+report.Jobs+report.Connections > 0:
		report.Phase = PhaseAcknowledged
	default:
		report.Phase = PhaseDrained
	}
	if report.Phase == PhaseDrained && report.Provable {
		report.Database = s.database(ctx, state, acks)
		if own := acks[s.options.Instance]; own.Mark != s.mark() {
			_ = s.acknowledge(ctx) // so that the others prove by the same mark; the next poll does it too
		}
		// The clock may have ended the mode, or somebody changed it, while the database was asked.
		if now, _ := s.State(); report.Database.Quiet && now.ID == state.ID && now.refuses(time.Now()) {
			report.Phase, report.Held = PhaseHeld, true
		}
	}
	return report, nil
}

func (r *Report) add(instance string, ack Ack, state State, silence time.Duration) {
	obeys := (ack.obeys(state) || ack.obeys(r.State)) && ack.Age.Abs() <= silence // it is negative when the store's clock was set back
	r.Instances++
	r.By = append(r.By, InstanceReport{
		Instance: instance, Obeys: obeys, Epoch: ack.Epoch, AgeSeconds: ack.Age.Seconds(),
		InFlight: ack.InFlight, Jobs: ack.Jobs, Connections: ack.Connections,
	})
	if !obeys {
		r.Missing = append(r.Missing, instance)
		return
	}
	r.Acknowledged++
	r.InFlight += ack.InFlight
	r.Jobs += ack.Jobs
	r.Connections += ack.Connections
}
