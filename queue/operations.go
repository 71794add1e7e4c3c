package queue

import (
	"context"
	"errors"

	"github.com/scaleaware/scaleaware/admin"
)

const jobsPath = "/api/v1/performance/jobs"

// Changed is the reply of an operation that changes a queue.
type Changed struct {
	// Queue is the queue.
	Queue string `json:"queue"`
	// Done says what was done: paused, resumed, closed, opened, parked, discarded, limited, throttled or retried.
	Done string `json:"done"`
	// Count is how many jobs it was done to, or would be on a dry run.
	Count int `json:"count"`
	// Changed is false when there was nothing to do.
	Changed bool `json:"changed"`
	// DryRun says that nothing was done.
	DryRun bool `json:"dry_run,omitempty"`
}

// Listed is the reply of the operation that lists queues.
type Listed struct {
	// Queues are the declared queues and those that exist in Redis.
	Queues []*Status `json:"queues"`
	// Unread are those of them whose state cannot be read: a key of theirs is something else, their slot is just
	// moving, or their master does not answer.
	Unread []Unread `json:"unread"`
}

// Unread is a queue whose state cannot be read.
type Unread struct {
	Queue string `json:"queue"`
	// Error says so; the log has the cause.
	Error string `json:"error"`
}

// Operations returns what can be asked of and done to queues over the management listener.
func (j *Jobs) Operations() []admin.Operation {
	write := func(name, summary string, body any, params []admin.Param, do func(ctx context.Context, call *admin.Call, s *Status) (any, error)) admin.Operation {
		return admin.Operation{
			Method: "POST", Path: jobsPath + "/{queue}/" + name, ID: "queue." + name, Summary: summary,
			Role: admin.Operator, Params: params, Body: body, Reply: Changed{},
			Do: func(ctx context.Context, call *admin.Call) (any, error) {
				s, err := j.Status(ctx, call.Path("queue"))
				if err != nil {
					return nil, problem(err)
				}
				reply, err := do(ctx, call, s)
				changed, ok := reply.(*Changed)
				if ok {
					changed.Queue, changed.DryRun = s.Queue, call.DryRun
				}
				if err != nil {
					return nil, changed.unfinished(err)
				}
				return reply, nil
			},
		}
	}
	operations := []admin.Operation{
		{Method: "GET", Path: jobsPath, ID: "queue.list", Summary: "All queues with their depths.", Reply: Listed{}, Do: j.opList},
		{Method: "GET", Path: jobsPath + "/{queue}", ID: "queue.status", Summary: "Depths, age, run time, failures and limits of a queue.", Reply: Status{},
			Do: func(ctx context.Context, call *admin.Call) (any, error) {
				s, err := j.Status(ctx, call.Path("queue"))
				if err != nil {
					return nil, problem(err)
				}
				return s, nil
			}},
		j.scalingOperation(),
		write("pause", "Start no more jobs of a queue; accept new ones. Who calls is its owner; what another one has paused stays as it is, and is 409 when it ends sooner.", HoldRequest{}, nil, j.opPause),
		write("close", "Accept no new jobs of a queue; run the stored ones.", HoldRequest{}, nil, j.opClose),
		write("resume", "Start and accept jobs of a queue again, whoever has stopped it, and bring back parked ones.", nil, nil, j.opResume),
		write("drain", "Set the waiting jobs of a queue aside until resume, or accept no more and run what is there, or delete.", nil, []admin.Param{
			{Name: "mode", In: "query", Type: "string", Description: "park (the default) sets jobs aside until resume; finish accepts no new ones until resume and runs what is there: it answers at once, and the queue's status says finished when all is done; discard deletes."},
			{Name: "states", In: "query", Type: "string", Description: "With mode=discard: of waiting (the default), delayed, retrying, failed, completed, parked, separated by commas."},
			{Name: "confirm", In: "query", Type: "boolean", Description: "Required to be true with mode=discard."},
		}, j.opDrain),
		write("retry-failed", "Give the failed jobs of a queue fresh attempts.", RetryRequest{}, nil, j.opRetryFailed),
		write("limits", "Change what bounds a queue in the whole fleet at once; an empty body returns to the declaration.", LimitsRequest{}, nil, j.opLimits),
		write("throttle", "Start no job of a queue for a while, as a 429 from outside asks for; 0 ends it.", ThrottleRequest{}, nil, j.opThrottle),
		{Method: "GET", Path: jobsPath + "/{queue}/jobs/{id}", ID: "queue.explain", Summary: "Where a job stands and why it does not run.", Reply: Explanation{},
			Do: func(ctx context.Context, call *admin.Call) (any, error) {
				x, err := j.Explain(ctx, call.Path("queue"), call.Path("id"))
				if err != nil {
					return nil, problem(err)
				}
				return x, nil
			}},
	}
	for i := range operations {
		operations[i].Do = inTime(operations[i].Do)
	}
	return operations
}

// opList fails when no queue can be read, as when Redis is away.
func (j *Jobs) opList(ctx context.Context, _ *admin.Call) (any, error) {
	names, err := j.Names(ctx)
	if err != nil {
		return nil, problem(err)
	}
	read, errs := make([]*Status, len(names)), make([]error, len(names))
	sideBySide(ctx, len(names), func(ctx context.Context, i int) { read[i], errs[i] = j.Status(ctx, names[i]) })
	if err := ctx.Err(); err != nil {
		return nil, problem(err)
	}
	var unread []error
	reply := Listed{Queues: make([]*Status, 0, len(names)), Unread: []Unread{}}
	for i, name := range names {
		switch err := errs[i]; {
		case err == nil:
			reply.Queues = append(reply.Queues, read[i])
		case !errors.Is(err, ErrUnknownQueue): // which was deleted since
			reply.Unread = append(reply.Unread, Unread{name, "queue: its state cannot be read in Redis; the log has the cause"})
			unread = append(unread, err)
		}
	}
	if len(unread) > 0 && len(reply.Queues) == 0 {
		return nil, problem(errors.Join(unread...))
	}
	if len(unread) > 0 {
		j.background("list", errors.Join(unread...))
	}
	return reply, nil
}

// problem gives an error its HTTP status.
func problem(err error) error {
	if _, ok := errors.AsType[*admin.Problem](err); ok {
		return err
	}
	switch {
	case errors.Is(err, ErrUnknownQueue), errors.Is(err, ErrNoJob):
		return admin.NotFound("%v", err)
	case errors.Is(err, ErrHeld):
		return admin.Conflict("%v", err)
	}
	return admin.Unavailable(err, "queue: Redis does not answer as expected, nothing was changed; the log has the cause, try again")
}
