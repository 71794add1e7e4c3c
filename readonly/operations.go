package readonly

import (
	"context"
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
	// Tier is what is refused: only "full", every write, is offered.
	Tier string `json:"tier,omitempty"`
}

// Operations returns the switch's operations for admin.New.
func (s *Switch) Operations() []admin.Operation {
	return []admin.Operation{
		{
			Method: http.MethodGet, Path: modePath, ID: "readonly.get",
			Summary: "Read-only mode and which instances obey it", Reply: Report{},
			Do: func(ctx context.Context, _ *admin.Call) (any, error) { return answer(s.Report(ctx)) },
		},
		{
			Method: http.MethodPost, Path: modePath, ID: "readonly.enable", Role: admin.Operator,
			Summary: "Refuse writes on every instance; an empty body enables, never toggles", Body: Request{}, Reply: Report{},
			Do: func(ctx context.Context, call *admin.Call) (any, error) {
				change, err := requested(call)
				if err != nil {
					return nil, err
				}
				if call.DryRun {
					return answer(s.Report(ctx))
				}
				return answer(s.Enable(ctx, change))
			},
		},
		{
			Method: http.MethodDelete, Path: modePath, ID: "readonly.disable", Role: admin.Operator,
			Summary: "Allow writes again", Reply: Report{},
			Do: func(ctx context.Context, call *admin.Call) (any, error) {
				report, err := s.Report(ctx)
				if err == nil && report.Incident && report.Enabled {
					return nil, admin.Conflict("an incident holds read-only mode: DELETE %s undoes all of it", incidentPath)
				}
				if call.DryRun || err != nil {
					return answer(report, err)
				}
				return answer(s.Disable(ctx, call.Actor))
			},
		},
	}
}

// Operations returns the incident's operations for admin.New.
func (i *Incident) Operations() []admin.Operation {
	return []admin.Operation{
		{
			Method: http.MethodPost, Path: incidentPath, ID: "incident.begin", Role: admin.Operator,
			Summary: "Read-only mode and all relief steps as one reversible measure", Body: Request{}, Reply: IncidentReport{},
			Do: func(ctx context.Context, call *admin.Call) (any, error) {
				change, err := requested(call)
				if err != nil {
					return nil, err
				}
				if !change.Until.IsZero() {
					return nil, admin.Invalid("until", "an incident has steps to undo, so it ends by DELETE %s only: leave until out", incidentPath)
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
	plan := IncidentReport{ReadOnly: mode}
	for _, step := range i.steps {
		plan.Steps = append(plan.Steps, StepReport{Name: step.Name})
	}
	return answer(plan, err)
}

func requested(call *admin.Call) (Change, error) {
	body := admin.Body[Request](call)
	if body.Tier != "" && body.Tier != "full" {
		return Change{}, admin.Invalid("tier", "tier %q is not offered, leave it out or say full", body.Tier)
	}
	if !body.Until.IsZero() && !body.Until.After(time.Now()) {
		return Change{}, admin.Invalid("until", "until has passed, give a time to come or leave it out")
	}
	return Change{Reason: body.Reason, Until: body.Until, Actor: call.Actor}, nil
}

func answer[T any](reply T, err error) (any, error) {
	if err != nil {
		return nil, admin.Unavailable(err, "the store of the read-only state does not answer; every instance keeps its last state")
	}
	return reply, nil
}
