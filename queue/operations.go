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
	// Done says what was done: paused, resumed, parked, discarded or retried.
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
}

// Operations returns what can be asked of and done to queues over the management listener.
func (j *Jobs) Operations() []admin.Operation {
	write := func(name, summary string, params []admin.Param, do func(ctx context.Context, call *admin.Call, s *Status) (*Changed, error)) admin.Operation {
		return admin.Operation{
			Method: "POST", Path: jobsPath + "/{queue}/" + name, ID: "queue." + name, Summary: summary,
			Role: admin.Operator, Params: params, Reply: Changed{},
			Do: func(ctx context.Context, call *admin.Call) (any, error) {
				s, err := j.Status(ctx, call.Path("queue"))
				if err != nil {
					return nil, problem(err)
				}
				reply, err := do(ctx, call, s)
				if err != nil {
					return nil, problem(err)
				}
				reply.Queue, reply.DryRun = s.Queue, call.DryRun
				return reply, nil
			},
		}
	}
	return []admin.Operation{
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
		write("pause", "Start no more jobs of a queue; accept new ones.", nil, j.opPause),
		write("resume", "Start jobs of a queue again and bring back parked ones.", nil, j.opResume),
		write("drain", "Set the waiting jobs of a queue aside until resume, or delete them.", []admin.Param{
			{Name: "mode", In: "query", Type: "string", Description: "park (the default) sets jobs aside until resume; discard deletes them."},
			{Name: "confirm", In: "query", Type: "boolean", Description: "Required to be true with mode=discard."},
		}, j.opDrain),
		write("retry-failed", "Give the failed jobs of a queue fresh attempts.", nil, j.opRetryFailed),
	}
}

func (j *Jobs) opList(ctx context.Context, _ *admin.Call) (any, error) {
	names, err := j.Names(ctx)
	if err != nil {
		return nil, problem(err)
	}
	reply := Listed{Queues: make([]*Status, 0, len(names))}
	for _, name := range names {
		s, err := j.Status(ctx, name)
		if errors.Is(err, ErrUnknownQueue) {
			continue // deleted since
		}
		if err != nil {
			return nil, problem(err)
		}
		reply.Queues = append(reply.Queues, s)
	}
	return reply, nil
}

func (j *Jobs) opPause(ctx context.Context, call *admin.Call, s *Status) (*Changed, error) {
	reply := &Changed{Done: "paused", Count: s.Waiting, Changed: !s.Paused}
	if call.DryRun {
		return reply, nil
	}
	var err error
	reply.Changed, err = j.Pause(ctx, s.Queue)
	return reply, err
}

func (j *Jobs) opResume(ctx context.Context, call *admin.Call, s *Status) (*Changed, error) {
	reply := &Changed{Done: "resumed", Count: s.Parked, Changed: s.Paused || s.Parked > 0}
	if call.DryRun {
		return reply, nil
	}
	paused, n, err := j.Resume(ctx, s.Queue)
	reply.Count, reply.Changed = n, paused || n > 0
	return reply, err
}

func (j *Jobs) opDrain(ctx context.Context, call *admin.Call, s *Status) (*Changed, error) {
	reply, drain := &Changed{Done: "parked", Count: s.Waiting}, j.Park
	switch call.Query("mode") {
	case "", "park":
	case "discard":
		if call.Query("confirm") != "true" && !call.DryRun {
			return nil, admin.Invalid("confirm", "mode=discard deletes %d waiting jobs of queue %q for good: add confirm=true, or use mode=park, which resume undoes", s.Waiting, s.Queue)
		}
		reply.Done, drain = "discarded", j.Discard
	default:
		return nil, admin.Invalid("mode", "mode is %q, want park or discard", clip(call.Query("mode")))
	}
	var err error
	if !call.DryRun {
		reply.Count, err = drain(ctx, s.Queue)
	}
	reply.Changed = reply.Count > 0
	return reply, err
}

func (j *Jobs) opRetryFailed(ctx context.Context, call *admin.Call, s *Status) (*Changed, error) {
	reply := &Changed{Done: "retried", Count: s.Failed}
	var err error
	if !call.DryRun {
		reply.Count, err = j.RetryFailed(ctx, s.Queue)
	}
	reply.Changed = reply.Count > 0
	return reply, err
}

// problem gives an error its HTTP status.
func problem(err error) error {
	if _, ok := errors.AsType[*admin.Problem](err); ok {
		return err
	}
	if errors.Is(err, ErrUnknownQueue) {
		return admin.NotFound("%v", err)
	}
	return admin.Unavailable(err, "queue: Redis does not answer as expected, nothing more was done; the log has the cause, try again")
}
