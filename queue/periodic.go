package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/scaleaware/scaleaware/redisclient"
)

// Periodic is a job that comes again and again, once for the whole fleet each time.
type Periodic struct {
	// Name names it for ever, in the IDs of its jobs. It is required: 1 to 64 letters, digits, dots, dashes, underscores.
	Name string
	// Spec is when: five fields of cron, in UTC unless it begins with CRON_TZ=Europe/Berlin, or @hourly, @every 10m. Every
	// process of the fleet must have the same. The times of @every are counted from when the fleet first had it. It is required.
	Spec string
	// Job is enqueued each time. It is required.
	Job Job
	// Options are how.
	Options []Option
	// Grace is how late one may come because no process ran at its time; of several that were missed the last one comes.
	// Zero means an hour.
	Grace time.Duration
}

// periodic is a Periodic with its schedule.
type periodic struct {
	Periodic
	at    cron.Schedule
	lease *redisclient.Lease
}

// periodicRetention keeps the ID of a job that is done, so that no other process enqueues it once more. It is longer than
// any Grace.
const periodicRetention = 25 * time.Hour

// Every makes Run enqueue a job periodically. All processes of the fleet may do so: the jobs are as many as one process
// would enqueue. Call it before Run.
func (j *Jobs) Every(p Periodic) error {
	var errs []error
	if !validName(p.Name) {
		errs = append(errs, fmt.Errorf("queue: Periodic.Name is %q, want 1 to 64 letters, digits, dots, dashes and underscores", clip(p.Name)))
	}
	at, err := cron.ParseStandard(p.Spec)
	if err != nil {
		errs = append(errs, fmt.Errorf("queue: Periodic %q: Spec %q, want five fields of cron or @every 10m: %w", clip(p.Name), clip(p.Spec), err))
	}
	if p.Grace == 0 {
		p.Grace = time.Hour
	}
	if p.Grace < time.Minute || p.Grace > 24*time.Hour {
		errs = append(errs, fmt.Errorf("queue: Periodic %q: Grace is %v, want 1m to 24h", clip(p.Name), p.Grace))
	}
	if hasID(p.Options) {
		errs = append(errs, fmt.Errorf("queue: Periodic %q has an ID among its Options, leave it out: it gets one for each time", clip(p.Name)))
	}
	for _, other := range j.crons {
		if other.Name == p.Name {
			errs = append(errs, fmt.Errorf("queue: Periodic %q is there twice", clip(p.Name)))
		}
	}
	if err == nil {
		if _, ok := at.(*cron.SpecSchedule); ok && p.Spec[0] != 'C' && p.Spec[0] != 'T' {
			at.(*cron.SpecSchedule).Location = time.UTC
		}
	}
	e, sealErr := seal(j.opts.Codec, p.Job, p.Options)
	switch {
	case sealErr != nil:
		errs = append(errs, sealErr)
	default:
		if e.Queue == "" && len(j.queues) == 1 {
			e.Queue = j.queues[0].Name
		}
		if _, ok := j.declared(e.Queue); !ok {
			errs = append(errs, fmt.Errorf("queue: Periodic %q: %w: %q", clip(p.Name), ErrUnknownQueue, clip(e.Queue)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	j.crons = append(j.crons, &periodic{Periodic: p, at: at, lease: redisclient.NewLease(j.rdb, "scaleaware:queue:periodic:"+p.Name, leadFor)})
	return nil
}

// runPeriodic enqueues what is due while this process leads. Should two believe that they lead, the second finds the ID.
func (j *Jobs) runPeriodic(ctx context.Context, p *periodic) {
	var last time.Time // the last time whose job is enqueued
	const look = time.Second
	for sleep(ctx, look) {
		leads, err := p.lease.Hold(ctx)
		if err == nil && leads {
			last, err = j.catchUp(ctx, p, last, time.Now())
		}
		if err != nil && ctx.Err() == nil {
			j.background("periodic", err, "name", p.Name)
		}
	}
}

// catchUp enqueues the last job that was due since last and not longer than Grace ago. What a process remembers says when it has
// to look closer; what is stored counts then, as others may have led meanwhile.
func (j *Jobs) catchUp(ctx context.Context, p *periodic, last, now time.Time) (time.Time, error) {
	if !last.IsZero() && lastDue(p.at, last, now, p.Grace).IsZero() {
		return last, nil
	}
	unix, err := j.rdb.Get(ctx, p.lastKey()).Int64()
	switch stored := time.Unix(unix, 0); {
	case isNil(err) && last.IsZero(): // its first day: it begins with the next time
		return time.Unix(now.Unix(), 0), j.rdb.SetNX(ctx, p.lastKey(), now.Unix(), 0).Err()
	case err != nil && !isNil(err):
		return last, err
	case err == nil && stored.After(last):
		last = stored
	}
	due := lastDue(p.at, last, now, p.Grace)
	if due.IsZero() {
		return last, nil
	}
	id := fmt.Sprintf("periodic:%s:%d", p.Name, due.Unix())
	_, err = j.Enqueue(ctx, p.Job, append(p.Options[:len(p.Options):len(p.Options)], ID(id), atLeast(periodicRetention))...)
	if err != nil && !errors.Is(err, ErrExists) {
		return last, err
	}
	return due, j.rdb.Set(ctx, p.lastKey(), due.Unix(), 0).Err()
}

func (p *periodic) lastKey() string { return "scaleaware:queue:periodic:" + p.Name + ":last" }

func atLeast(d time.Duration) Option {
	return func(s *settings) { s.Retention = max(s.Retention, d) }
}

// lastDue returns the last time of a schedule after last and not after now, or zero, also when that is longer than grace ago.
func lastDue(at cron.Schedule, last, now time.Time, grace time.Duration) time.Time {
	oldest := now.Add(-grace)
	if every, ok := at.(cron.ConstantDelaySchedule); ok { // its times are counted from the last one, not from any
		due := last.Add(now.Sub(last) / every.Delay * every.Delay)
		if !due.After(last) || due.Before(oldest) {
			return time.Time{}
		}
		return due
	}
	from := last
	if oldest.After(from) {
		from = oldest
	}
	var due time.Time
	for range 100_000 { // one a second for a day
		next := at.Next(from)
		if next.IsZero() || next.After(now) {
			break
		}
		due, from = next, next
	}
	return due
}
