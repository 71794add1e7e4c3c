package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/scaleaware/scaleaware/redisclient"
)

const (
	// leadFor is how long a process stays the one that scales a queue after it was last heard of: short enough that
	// the next one has called its hook, which may take a second, 15s after a death. It trusts itself a second less.
	leadFor = 13 * time.Second
	// scaleTimeout bounds one question to Redis.
	scaleTimeout = 3 * time.Second
)

// ScaleHook makes d.Workers workers run. The number is absolute, so calling it twice does no harm. A call is made by
// one process of the fleet at a time; what can check must refuse a d.Generation lower than one that it has seen, as it
// comes from a process that stood still for so long that another one has taken over. ctx ends when this process may not
// trust itself any more. After an error the hook is called again at the next look, under a higher generation.
type ScaleHook func(ctx context.Context, d Decision) error

// ScaleOptions configures Autoscale. Every field is optional.
type ScaleOptions struct {
	// Interval is the pause between looks. Zero means 5s.
	Interval time.Duration
	// DryRun decides, logs, exports and explains, and calls no hook: to try a rule, or to leave the doing to KEDA or a
	// HorizontalPodAutoscaler. Zero means that the hook is called.
	DryRun bool
	// Bottleneck names what the jobs need and what is saturated now, for example "database primary", or returns "".
	// Nothing is then scaled up, as nothing is when it fails. It is asked once a look and gets 2s. Zero means that nothing
	// ever is.
	Bottleneck func(ctx context.Context) (string, error)
}

func (o *ScaleOptions) withDefaults(queue string) (ScaleOptions, error) {
	var opts ScaleOptions
	if o != nil {
		opts = *o
	}
	if opts.Interval == 0 {
		opts.Interval = 5 * time.Second
	}
	if opts.Interval < 10*time.Millisecond || opts.Interval > 10*time.Second {
		return opts, fmt.Errorf("queue: ScaleOptions.Interval of %q is %v, want 10ms to 10s", clip(queue), opts.Interval)
	}
	return opts, nil
}

// scaler applies one rule. It remembers nothing: what one leader knows the next one must know, too.
type scaler struct {
	rule  ScaleRule
	hook  ScaleHook
	opts  ScaleOptions
	lead  time.Duration // leadFor; tests shorten it
	lease *redisclient.Lease
	leads bool
}

func newScaler(j *Jobs, rule ScaleRule, hook ScaleHook, opts ScaleOptions, lead time.Duration) *scaler {
	return &scaler{rule: rule, hook: hook, opts: opts, lead: lead, lease: redisclient.NewLease(j.rdb, ownKey(rule.Queue, "scaler"), lead)}
}

// trusted is how long this process may believe that it leads, from before it asked.
func (s *scaler) trusted() time.Duration { return s.lead - min(time.Second, s.lead/5) }

// Autoscale makes Run look after a queue and call hook, in one process of the fleet at a time, when rule wants another
// number of workers. hook may be nil when o.DryRun is set. Call it before Run.
func (j *Jobs) Autoscale(rule ScaleRule, hook ScaleHook, o *ScaleOptions) error {
	opts, err := o.withDefaults(rule.Queue)
	errs := []error{rule.validate(), err}
	if _, ok := j.declared(rule.Queue); !ok {
		errs = append(errs, fmt.Errorf("queue: ScaleRule: %w: %q", ErrUnknownQueue, clip(rule.Queue)))
	}
	if hook == nil && !opts.DryRun {
		errs = append(errs, fmt.Errorf("queue: ScaleRule of %q has no hook, give one or set ScaleOptions.DryRun", clip(rule.Queue)))
	}
	for _, s := range j.scalers {
		if s.rule.Queue == rule.Queue {
			errs = append(errs, fmt.Errorf("queue: queue %q has a ScaleRule already", rule.Queue))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	j.scalers = append(j.scalers, newScaler(j, rule, hook, opts, leadFor))
	return nil
}

func (j *Jobs) runScaler(ctx context.Context, s *scaler) {
	defer j.abdicate(ctx, s)
	for pause := s.opts.Interval; sleep(ctx, pause); {
		began := time.Now()
		err := j.lookAfter(ctx, s, began)
		if errors.Is(err, errOvertaken) {
			s.leads = false
		} else if err != nil && ctx.Err() == nil {
			j.background("autoscale", err, "queue", s.rule.Queue)
		}
		if pause = s.opts.Interval - time.Since(began); !s.leads {
			pause = min(pause, j.leaseLeft(ctx, s))
		}
		pause = max(pause, 10*time.Millisecond)
	}
}

// lookAfter decides if this process leads. Its trust in that is counted from before the attempt, on this process's
// own monotonic clock, which goes on while the process stands still.
func (j *Jobs) lookAfter(ctx context.Context, s *scaler, began time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, began.Add(s.trusted()))
	defer cancel()
	hold, stop := context.WithTimeout(ctx, scaleTimeout)
	defer stop()
	var err error
	if s.leads, err = s.lease.Hold(hold); err != nil || !s.leads {
		return err
	}
	return j.scale(ctx, s)
}

// leaseLeft is when the leader's lease may end, so that a dead one is not missed for longer than that.
func (j *Jobs) leaseLeft(ctx context.Context, s *scaler) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, scaleTimeout)
	defer cancel()
	left, err := j.rdb.PTTL(ctx, s.lease.Key()).Result()
	if err != nil || left < 0 {
		return s.opts.Interval
	}
	return left + 10*time.Millisecond
}

func (j *Jobs) abdicate(ctx context.Context, s *scaler) {
	if !s.leads {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = s.lease.Release(ctx) // it ends by itself
}

// scale decides once and calls the hook when there is something to do.
func (j *Jobs) scale(ctx context.Context, s *scaler) error {
	in, memory, err := j.readScale(ctx, s)
	if err != nil {
		return err // nothing is known, so nothing is changed
	}
	d, state := s.rule.Decide(memory.state, in)
	d.DryRun = s.opts.DryRun
	d.Generation = memory.generation
	call := d.Workers >= 0 && (d.Changed() || !d.DryRun && memory.applied != memory.generation)
	if call {
		// Redis's clock keeps it growing when a failover has forgotten the last one.
		d.Generation = max(memory.generation+1, in.At.UnixMilli())
	}
	if err := j.storeScale(ctx, s, memory, d, state, call); err != nil {
		return err
	}
	if call {
		j.log.Info("queue: another number of workers is wanted", "queue", d.Queue, "workers", d.Workers, "previous", d.Previous,
			"due", in.Due, "reason", d.Reason, "generation", d.Generation, "dry_run", d.DryRun)
	}
	j.logDecision(ctx, d)
	if !call || d.DryRun {
		return nil
	}
	return j.callHook(ctx, s, d)
}

func (j *Jobs) callHook(ctx context.Context, s *scaler, d Decision) error {
	// The clock and not the context is asked: after a standstill its timer may not have run yet.
	if until, ok := ctx.Deadline(); ctx.Err() != nil || ok && !time.Now().Before(until) {
		return fmt.Errorf("queue: scale hook of %q was not called, as this process stood still: %w", d.Queue, errOvertaken)
	}
	if err := s.hook(ctx, d); err != nil {
		return fmt.Errorf("queue: scale hook of %q: %w", d.Queue, err)
	}
	done, cancel := context.WithTimeout(context.WithoutCancel(ctx), scaleTimeout)
	defer cancel()
	if err := appliedScript.Run(done, j.rdb, []string{scaleKey(d.Queue)}, d.Generation).Err(); err != nil {
		return fmt.Errorf("queue: note that the scale hook of %q was called, it is called again: %w", d.Queue, err)
	}
	return nil
}

// logDecision writes what Decide was given, from which it can be replayed.
func (j *Jobs) logDecision(ctx context.Context, d Decision) {
	if !j.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	if text, err := json.Marshal(d); err == nil {
		j.log.Debug("queue: scale decision", "queue", d.Queue, "decision", string(text))
	}
}
