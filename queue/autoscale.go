package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/scaleaware/scaleaware/redisclient"
)

// leadFor is how long a process stays the one that scales a queue after it was last heard of.
const leadFor = 15 * time.Second

// ScaleHook makes d.Workers workers run: d.Workers is absolute, so calling twice does no harm. An error is retried
// with a fresh decision.
type ScaleHook func(ctx context.Context, d Decision) error

// scaler applies one rule.
type scaler struct {
	rule    ScaleRule
	hook    ScaleHook
	lease   *redisclient.Lease
	applied int
}

// Autoscale makes Run watch a queue and call hook, in one process of the fleet at a time, when rule wants another
// number of workers. Call it before Run.
func (j *Jobs) Autoscale(rule ScaleRule, hook ScaleHook) error {
	errs := []error{rule.validate()}
	if _, ok := j.declared(rule.Queue); !ok {
		errs = append(errs, fmt.Errorf("queue: ScaleRule: %w: %q", ErrUnknownQueue, clip(rule.Queue)))
	}
	if hook == nil {
		errs = append(errs, fmt.Errorf("queue: ScaleRule of %q has no hook", clip(rule.Queue)))
	}
	for _, s := range j.scalers {
		if s.rule.Queue == rule.Queue {
			errs = append(errs, fmt.Errorf("queue: queue %q has a ScaleRule already", rule.Queue))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	j.scalers = append(j.scalers, &scaler{rule: rule, hook: hook, lease: redisclient.NewLease(j.rdb, ownKey(rule.Queue, "scaler"), leadFor), applied: -1})
	return nil
}

func (j *Jobs) runScaler(ctx context.Context, s *scaler) {
	leads := false
	for sleep(ctx, j.opts.SampleInterval) {
		led := leads
		var err error
		if leads, err = s.lease.Hold(ctx); err == nil && leads {
			if !led {
				s.applied = j.wanted(ctx, s.rule.Queue) // the last leader's, so that nothing is called anew
			}
			err = j.scale(ctx, s)
		}
		if err != nil && ctx.Err() == nil {
			j.background("autoscale", err, "queue", s.rule.Queue)
		}
	}
}

// scale decides once and calls the hook when there is something to change.
func (j *Jobs) scale(ctx context.Context, s *scaler) error {
	d := s.rule.Decide(s.applied, j.depth(ctx, s.rule.Queue))
	if !d.Changed() {
		return nil
	}
	j.log.Info("queue: another number of workers is wanted", "queue", d.Queue, "workers", d.Workers, "previous", d.Previous, "waiting", d.Depth.Waiting, "reason", d.Reason)
	hooked, cancel := context.WithTimeout(ctx, leadFor-time.Second)
	defer cancel()
	if err := s.hook(hooked, d); err != nil {
		return fmt.Errorf("queue: scale hook of %q: %w", d.Queue, err)
	}
	s.applied = d.Workers
	return j.rdb.Set(ctx, ownKey(d.Queue, "workers"), d.Workers, 0).Err()
}

func (j *Jobs) depth(ctx context.Context, queue string) Depth {
	status, err := j.readDepth(ctx, queue)
	if err != nil {
		j.background("autoscale", err, "queue", queue)
		return Depth{}
	}
	return Depth{Waiting: status.Waiting, Known: true}
}

// wanted returns the number of workers that the fleet's scaler has asked for, or -1.
func (j *Jobs) wanted(ctx context.Context, queue string) int {
	n, err := strconv.Atoi(j.rdb.Get(ctx, ownKey(queue, "workers")).Val())
	if err != nil {
		return -1
	}
	return n
}
