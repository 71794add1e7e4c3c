package readonly

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

const (
	modePath     = "/api/v1/admin/read-only-mode"
	incidentPath = "/api/v1/admin/incident"
)

// Request is the body of the enabling operations. Empty is legal.
type Request struct {
	// Reason is shown to whoever is refused.
	Reason string `json:"reason,omitempty"`
	// Until ends the mode by itself, in RFC 3339.
	Until time.Time `json:"until,omitzero"`
	// Tier is whose writes are refused: "full", which is everybody's and what is meant when it is left out, or "staff",
	// everybody's but that of staff.
	Tier Tier `json:"tier,omitempty"`
	// Tenants are those whose writes are refused, when it is not all.
	Tenants []string `json:"tenants,omitempty"`
}

// ModeReport is the answer of the operations on the mode.
type ModeReport struct {
	Report
	// DryRun says that nothing was changed: the rest is as it is now.
	DryRun bool `json:"dry_run"`
}

// Operations returns the switch's operations for admin.New.
func (s *Switch) Operations() []admin.Operation {
	mode := func(report Report, err error) (any, error) { return answer(ModeReport{Report: report}, err) }
	return []admin.Operation{
		{
			Method: http.MethodGet, Path: modePath, ID: "readonly.get",
			Summary: "Read-only mode, which instances obey it, and how far the proof is that nothing is written", Reply: ModeReport{},
			Do: func(ctx context.Context, _ *admin.Call) (any, error) { return mode(s.Report(ctx)) },
		},
		{
			Method: http.MethodPost, Path: modePath, ID: "readonly.enable", Role: admin.Operator,
			Summary: "Refuse writes on every instance; an empty body enables, never toggles", Body: Request{}, Reply: ModeReport{},
			Do: func(ctx context.Context, call *admin.Call) (any, error) {
				change, err := s.requested(call)
				if err != nil {
					return nil, err
				}
				if call.DryRun {
					return s.dry(ctx)
				}
				return mode(s.Enable(ctx, change))
			},
		},
		{
			Method: http.MethodDelete, Path: modePath, ID: "readonly.disable", Role: admin.Operator,
			Summary: "Allow writes again", Reply: ModeReport{},
			Do: func(ctx context.Context, call *admin.Call) (any, error) {
				if state, _ := s.State(); call.DryRun && !state.Incident {
					return s.dry(ctx)
				} else if call.DryRun {
					return mode(Report{}, ErrIncident)
				}
				return mode(s.Disable(ctx, call.Actor))
			},
		},
	}
}

func (s *Switch) dry(ctx context.Context) (any, error) {
	report, err := s.Report(ctx)
	return answer(ModeReport{Report: report, DryRun: true}, err)
}

// Operations returns the incident's operations for admin.New.
func (i *Incident) Operations() []admin.Operation {
	return []admin.Operation{
		{
			Method: http.MethodPost, Path: incidentPath, ID: "incident.begin", Role: admin.Operator,
			Summary: "Read-only mode and all relief steps as one reversible measure, undone at until or by DELETE", Body: Request{}, Reply: IncidentReport{},
			Do: func(ctx context.Context, call *admin.Call) (any, error) {
				change, err := i.mode.requested(call)
				if err != nil {
					return nil, err
				}
				if call.DryRun {
					return i.plan(ctx)
				}
				return answer(i.Begin(ctx, change))
			},
		},
		{
			Method: http.MethodDelete, Path: incidentPath, ID: "incident.end", Role: admin.Operator,
			Summary: "Undo every step of the incident and allow writes again", Reply: IncidentReport{},
			Do: func(ctx context.Context, call *admin.Call) (any, error) {
				if call.DryRun {
					return i.plan(ctx)
				}
				return answer(i.End(ctx, call.Actor))
			},
		},
	}
}

// plan answers a dry run: the mode as it is and the steps that would run.
func (i *Incident) plan(ctx context.Context) (any, error) {
	mode, err := i.mode.Report(ctx)
	plan := IncidentReport{ReadOnly: mode, Steps: []StepReport{}, DryRun: true}
	for _, step := range i.steps {
		plan.Steps = append(plan.Steps, StepReport{Name: step.Name})
	}
	return answer(plan, err)
}

// requested checks field by field, so that the answer names the one that is wrong.
func (s *Switch) requested(call *admin.Call) (Change, error) {
	body := admin.Body[Request](call)
	for _, c := range []struct {
		field  string
		change Change
	}{
		{"tier", Change{Tier: body.Tier}}, {"tenants", Change{Tenants: body.Tenants}},
		{"until", Change{Until: body.Until}}, {"reason", Change{Reason: body.Reason}},
	} {
		if err := s.validate(c.change); err != nil {
			return Change{}, admin.Invalid(c.field, "%v", err)
		}
	}
	return Change{Tier: body.Tier, Tenants: body.Tenants, Reason: body.Reason, Until: body.Until, Actor: call.Actor}, nil
}

func answer[T any](reply T, err error) (any, error) {
	if errors.Is(err, ErrIncident) {
		return nil, admin.Conflict("an incident holds read-only mode: DELETE %s undoes all of it", incidentPath)
	}
	if err != nil {
		return nil, admin.Unavailable(err, "the store of the read-only state does not answer; every instance keeps its last state")
	}
	return reply, nil
}
