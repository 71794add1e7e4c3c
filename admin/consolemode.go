package admin

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// modeView is whether writes are taken, how far a change has come, and what may be done about it.
type modeView struct {
	Enabled, Incident bool
	Reason, Actor     string
	Since, Until      time.Time
	Agree             string // how many instances do
	Missing           []string
	Whose             string // are refused, when not everybody's
	Automatic         bool   // a Keeper has tripped it, until Lease unless it is renewed
	Lease             time.Time
	Foreign           []string // programs that write nevertheless
	Blind             bool     // others may write and cannot be seen
	Proof             []proofStep
	Proven            bool
	Actions           []action
}

// proofStep is one phase of a change. State is done, current or ahead.
type proofStep struct{ Name, Text, State string }

// proofPhases are in the order in which read-only mode reaches them. The last one is only for a mode that can be proven.
var proofPhases = []string{"announced", "acknowledged", "drained", "held"}

func (c *console) mode(r *readOnlyReply, id Identity) *modeView {
	v := &modeView{
		Enabled: r.Enabled, Incident: r.Incident, Reason: r.Reason, Actor: r.Actor, Since: r.Since, Until: r.Until, Missing: r.Missing,
		Automatic: r.Source == "automatic", Lease: r.Lease,
	}
	if r.Instances > 0 {
		v.Agree = fmt.Sprintf("%d of %d instances agree", r.Acknowledged, r.Instances)
	}
	if !r.Enabled {
		v.Actions = c.offer(id, "", "read-only-on", "incident-on")
		return v
	}
	switch {
	case len(r.Tenants) > 0:
		v.Whose = "writes of " + strings.Join(r.Tenants, ", ") + " are refused"
	case r.Tier == "staff":
		v.Whose = "staff may write"
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
	phases := proofPhases
	reached := slices.Index(phases, r.Phase)
	if !r.Provable && r.Phase != "held" {
		phases = phases[:len(phases)-1]
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
			if busy := r.busy(); busy != "" {
				step.Text = busy + " still in flight"
			} else if step.State != "done" {
				step.Text = "writes in flight end"
			}
		case "held":
			step.Text = r.Database.text()
		}
		v.Proof = append(v.Proof, step)
	}
	v.Proven = reached == len(phases)-1
	if d := r.Database; d != nil {
		for _, t := range d.Foreign[:min(len(d.Foreign), maxForeign)] {
			v.Foreign = append(v.Foreign, t.String())
		}
		v.Blind = d.Blind
	}
}

// maxForeign is how many foreign writers the page names.
const maxForeign = 10

func (r *readOnlyReply) busy() string {
	var parts []string
	for _, p := range []struct {
		n    int64
		what string
	}{{r.InFlight, "request"}, {r.Jobs, "job"}, {r.Connections, "connection"}} {
		if p.n == 1 {
			parts = append(parts, "1 "+p.what)
		} else if p.n > 1 {
			parts = append(parts, fmt.Sprintf("%d %ss", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

func (d *databaseProof) text() string {
	switch {
	case d == nil:
		return "the database is quiet"
	case d.Error != "":
		return "the database could not be asked: " + d.Error
	case d.Quiet:
		return fmt.Sprintf("every transaction before number %d has ended", d.Fence)
	case len(d.Waiting) > 0:
		return fmt.Sprintf("waits for %s, and %d more", d.Waiting[0], len(d.Waiting)-1)
	case len(d.Prepared) > 0:
		return fmt.Sprintf("waits for COMMIT or ROLLBACK PREPARED of %q, and %d more", d.Prepared[0].Name, len(d.Prepared)-1)
	}
	return "the database comes to rest"
}
