package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

// unfinished is what an operation that has failed tells of it. What Redis has not answered it may have done, and a step of what goes in
// steps; to make that again is for those to say who have looked, as it is done to jobs that have come meanwhile.
func (c *Changed) unfinished(err error) error {
	told := problem(err)
	p, ok := errors.AsType[*admin.Problem](told)
	if !ok || p.Cause == nil || c == nil || c.DryRun { // it is not Redis's, or nothing was to be changed
		return told
	}
	beside := ""
	if c.Done == "resumed" { // its jobs are those that were parked
		beside = "; the queue may be paused and closed no more"
	}
	switch counts := c.counts(); {
	case counts && answered(err):
		return admin.Unavailable(err, "queue: Redis refuses to go on: %d jobs are %s, and no more%s; the log has the cause, try again", c.Count, c.Done, beside)
	case counts:
		p = admin.Unavailable(err, "queue: Redis does not answer: %d jobs are %s, and up to %d more may be%s: look at the queue before you repeat it; the log has the cause", c.Count, c.Done, step, beside)
		p.RetryAfter = 0
		return p
	case answered(err) && !passing(err): // else an earlier try may have been done, of which the answer was lost
		return admin.Unavailable(err, "queue: Redis refuses it; the log has the cause, try again")
	default:
		return admin.Unavailable(err, "queue: Redis does not answer: the queue may be %s: look at it, or try again; the log has the cause", c.Done)
	}
}

// counts reports whether Count is of jobs that it was done to, some at a time.
func (c *Changed) counts() bool {
	return c.Done == "parked" || c.Done == "discarded" || c.Done == "retried" || c.Done == "resumed"
}

// inTime makes an operation whose context has ended fail of that, whatever Redis's client says: admin tells its caller.
func inTime(do func(context.Context, *admin.Call) (any, error)) func(context.Context, *admin.Call) (any, error) {
	return func(ctx context.Context, call *admin.Call) (any, error) {
		reply, err := do(ctx, call)
		if p, ok := errors.AsType[*admin.Problem](err); ok && p.Cause != nil && ended(ctx) != nil {
			return nil, fmt.Errorf("%w: %w", ended(ctx), p.Cause)
		}
		return reply, err
	}
}

// ended is why ctx has ended, or nil. A connection that has its deadline may have said so sooner than it.
func ended(ctx context.Context) error {
	if until, ok := ctx.Deadline(); ok && !time.Now().Before(until) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}
