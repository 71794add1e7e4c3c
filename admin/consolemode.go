package admin

import (
	"fmt"
	"slices"
	"time"
)

// modeView is whether writes are taken, how far a change has come, and what may be done about it.
type modeView struct {
	Enabled, Incident bool
	Reason, Actor     string
	Since, Until      time.Time
	Agree             string // how many instances do
	Missing           []string
	Proof             []proofStep
	Proven            bool
	Actions           []action
}

// proofStep is one phase of a change. State is done, current or ahead.
type proofStep struct{ Name, Text, State string }

// proofPhases are in the order in which read-only mode reaches them.
var proofPhases = []string{"announced", "acknowledged", "drained"}

func (c *console) mode(r *readOnlyReply, id Identity) *modeView {
	v := &modeView{
		Enabled: r.Enabled, Incident: r.Incident, Reason: r.Reason, Actor: r.Actor, Since: r.Since, Until: r.Until, Missing: r.Missing,
	}
	if r.Instances > 0 {
		v.Agree = fmt.Sprintf("%d of %d instances agree", r.Acknowledged, r.Instances)
	}
	if !r.Enabled {
		v.Actions = c.offer(id, "", "read-only-on", "incident-on")
		return v
	}
	if r.Incident {
		v.Actions = c.offer(id, "", "incident-off")
	}
	if len(v.Actions) == 0 {
		v.Actions = c.offer(id, "", "read-only-off")
	}
	v.prove(r)
	return v
}

func (v *modeView) prove(r *readOnlyReply) {
	if r.Phase == "" {
		return
	}
	phases := slices.Clone(proofPhases)
	reached := slices.Index(phases, r.Phase)
	if reached < 0 { // a further one, such as held
		reached = len(phases)
		phases = append(phases, r.Phase)
	}
	for i, name := range phases {
		step := proofStep{Name: name, State: "done"}
		if i > reached {
			step.State = "ahead"
		}
		if i == reached+1 {
			step.State = "current"
		}
		switch name {
		case "announced":
			step.Text = "stored, and sent to every instance"
		case "acknowledged":
			step.Text = fmt.Sprintf("%d of %d instances obey", r.Acknowledged, r.Instances)
		case "drained":
			step.Text = "no write is in flight"
			if r.InFlight > 0 {
				step.Text = fmt.Sprintf("%d still in flight", r.InFlight)
			} else if step.State != "done" {
				step.Text = "writes in flight end"
			}
		}
		v.Proof = append(v.Proof, step)
	}
	v.Proven = reached == len(phases)-1
}
