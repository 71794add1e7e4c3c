package queue

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

// HoldRequest is the body of pause and close. Empty is legal. The owner is the caller. A queue that another owner holds stays as
// it is, with that one's reason and end; when that comes sooner than asked for, the answer is 409.
type HoldRequest struct {
	// Reason is for people.
	Reason string `json:"reason,omitempty"`
	// Seconds ends it by itself.
	Seconds float64 `json:"seconds,omitempty"`
}

// hold is the actor's, as the audit names it.
func (r HoldRequest) hold(actor string) (*Hold, error) {
	h := &Hold{Reason: r.Reason, Owner: ownerOfCall(actor), For: seconds(r.Seconds)}
	if _, err := h.validate("hold", ""); err != nil || r.Seconds < 0 {
		return nil, admin.Invalid("seconds", "seconds is %v and reason has %d bytes, want 0 for no end or at least 1, and up to 1024 bytes", r.Seconds, len(r.Reason))
	}
	return h, nil
}

// ownerOfCall is who holds what an operation has stopped.
func ownerOfCall(actor string) string {
	return strings.ToValidUTF8(actor[:min(len(actor), maxOwner)], "")
}

// idempotent makes a hold or, on a dry run, tells of it. What another owner has stopped for no less time stands still as it
// should, and stays that owner's.
func (h *Hold) idempotent(call *admin.Call, stands *Held, hold func() (bool, error)) (changed bool, err error) {
	switch {
	case !call.DryRun:
		changed, err = hold()
	case stands == nil:
		return true, nil
	case stands.Owner != h.Owner:
		err = &HeldError{*stands}
	}
	if by, ok := errors.AsType[*HeldError](err); ok && by.By.suits(h) {
		return false, nil
	}
	return changed, err
}

// RetryRequest is the body of retry-failed. Empty takes all at once.
type RetryRequest struct {
	// Kind takes only jobs of this kind.
	Kind string `json:"kind,omitempty"`
	// After and Before take only jobs that failed then.
	After  time.Time `json:"after,omitzero"`
	Before time.Time `json:"before,omitzero"`
	// Most is how many are taken at most; 0 for all.
	Most int `json:"most,omitempty"`
	// PerSecond paces it: the call then goes on in the background.
	PerSecond float64 `json:"per_second,omitempty"`
}

// LimitsRequest is the body of limits.
type LimitsRequest struct {
	// Max starts in any window of PerSeconds; 0 for no bound.
	Max        int     `json:"max,omitempty"`
	PerSeconds float64 `json:"per_seconds,omitempty"`
	// Smooth spreads them over the window.
	Smooth bool `json:"smooth,omitempty"`
	// Concurrency bounds how many jobs run at once; 0 for no bound.
	Concurrency int `json:"concurrency,omitempty"`
	// Unlimited takes all bounds away, which an empty body does not.
	Unlimited bool `json:"unlimited,omitempty"`
}

// ThrottleRequest is the body of throttle.
type ThrottleRequest struct {
	// Seconds is how long; 0 ends it.
	Seconds float64 `json:"seconds"`
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (j *Jobs) opPause(ctx context.Context, call *admin.Call, s *Status) (any, error) {
	hold, err := admin.Body[HoldRequest](call).hold(call.Actor)
	if err != nil {
		return nil, err
	}
	reply := &Changed{Done: "paused", Count: s.Waiting}
	reply.Changed, err = hold.idempotent(call, s.Pause, func() (bool, error) { return j.Pause(ctx, s.Queue, hold) })
	return reply, err
}

func (j *Jobs) opClose(ctx context.Context, call *admin.Call, s *Status) (any, error) {
	hold, err := admin.Body[HoldRequest](call).hold(call.Actor)
	if err != nil {
		return nil, err
	}
	reply := &Changed{Done: "closed"}
	reply.Changed, err = hold.idempotent(call, s.Closed, func() (bool, error) { return j.Close(ctx, s.Queue, hold) })
	return reply, err
}

func (j *Jobs) opResume(ctx context.Context, call *admin.Call, s *Status) (any, error) {
	reply := &Changed{Done: "resumed", Count: s.Parked, Changed: s.Paused || s.Closed != nil || s.Parked > 0}
	if call.DryRun {
		return reply, nil
	}
	held, n, err := j.Resume(ctx, s.Queue)
	reply.Count, reply.Changed = n, held || n > 0
	return reply, err
}

func (j *Jobs) opDrain(ctx context.Context, call *admin.Call, s *Status) (any, error) {
	switch call.Query("mode") {
	case "", "park":
		reply := &Changed{Done: "parked", Count: s.Waiting}
		var err error
		if !call.DryRun {
			reply.Count, err = j.Park(ctx, s.Queue)
		}
		reply.Changed = reply.Count > 0
		return reply, err
	case "finish":
		hold := &Hold{Reason: "drain", Owner: ownerOfCall(call.Actor)}
		reply := &Changed{Done: "closed", Count: s.unfinished()}
		var err error
		reply.Changed, err = hold.idempotent(call, s.Closed, func() (bool, error) { return j.Close(ctx, s.Queue, hold) })
		return reply, err
	case "discard":
		return j.opDiscard(ctx, call, s)
	default:
		return nil, admin.Invalid("mode", "mode is %q, want park, finish or discard", clip(call.Query("mode")))
	}
}

func (j *Jobs) opDiscard(ctx context.Context, call *admin.Call, s *Status) (any, error) {
	of := []State{Waiting}
	if names := call.Query("states"); names != "" {
		of = nil
		for name := range strings.SplitSeq(names, ",") {
			of = append(of, State(name))
		}
		if err := checkStates(of); err != nil {
			return nil, admin.Invalid("states", "%v", err)
		}
	}
	reply := &Changed{Done: "discarded"}
	sizes := map[State]int{Waiting: s.Waiting, Delayed: s.Delayed, Retrying: s.Retrying, Failed: s.Failed, Completed: s.Completed, Parked: s.Parked}
	for _, state := range of {
		reply.Count += sizes[state]
	}
	if call.Query("confirm") != "true" && !call.DryRun {
		return nil, admin.Invalid("confirm", "mode=discard deletes %d jobs of queue %q for good: add confirm=true, or use mode=park, which resume undoes", reply.Count, s.Queue)
	}
	var err error
	if !call.DryRun {
		reply.Count, err = j.Purge(ctx, s.Queue, of...)
	}
	reply.Changed = reply.Count > 0
	return reply, err
}

func (j *Jobs) opRetryFailed(ctx context.Context, call *admin.Call, s *Status) (any, error) {
	body := admin.Body[RetryRequest](call)
	which := &RetryFailed{Kind: body.Kind, Before: body.Before, After: body.After, Most: body.Most, PerSecond: body.PerSecond}
	if _, err := which.validate(); err != nil {
		return nil, admin.Invalid("", "%v", err)
	}
	reply := &Changed{Queue: s.Queue, Done: "retried", DryRun: call.DryRun}
	var err error
	switch {
	case call.DryRun:
		reply.Count, err = j.retryFailed(ctx, s.Queue, which, true)
	case body.PerSecond > 0:
		return call.Background.Start("queue.retry-failed", s.Queue, call.Actor, func(ctx context.Context, _ admin.Progress) (any, error) {
			n, err := j.RetryFailed(ctx, s.Queue, which)
			reply.Count, reply.Changed = n, n > 0
			if err != nil && ctx.Err() == nil {
				err = reply.unfinished(err)
			}
			return reply, err
		})
	default:
		reply.Count, err = j.RetryFailed(ctx, s.Queue, which)
	}
	reply.Changed = reply.Count > 0
	return reply, err
}

func (j *Jobs) opLimits(ctx context.Context, call *admin.Call, s *Status) (any, error) {
	body := admin.Body[LimitsRequest](call)
	limits := Limits{Rate: Rate{Max: body.Max, Per: seconds(body.PerSeconds)}, Smooth: body.Smooth, Concurrency: body.Concurrency}
	if err := limits.validate(s.Queue); err != nil {
		return nil, admin.Invalid("", "%v", err)
	}
	if body.Unlimited && limits != (Limits{}) {
		return nil, admin.Invalid("unlimited", "unlimited takes all bounds away: leave the others out")
	}
	reply := &Changed{Done: "limited", Changed: true}
	var err error
	switch {
	case call.DryRun:
	case limits == Limits{} && !body.Unlimited:
		err = j.ResetLimits(ctx, s.Queue)
	default:
		err = j.SetLimits(ctx, s.Queue, limits)
	}
	return reply, err
}

func (j *Jobs) opThrottle(ctx context.Context, call *admin.Call, s *Status) (any, error) {
	d := seconds(admin.Body[ThrottleRequest](call).Seconds)
	if d < 0 || d > 24*time.Hour {
		return nil, admin.Invalid("seconds", "seconds is %v, want 0 to 86400", d.Seconds())
	}
	reply := &Changed{Done: "throttled", Changed: true}
	var err error
	if !call.DryRun {
		err = j.Throttle(ctx, s.Queue, d)
	}
	return reply, err
}
