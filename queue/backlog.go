package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// unfinished is how many jobs of a queue are still to be done: parked ones wait for Resume.
func (s *Status) unfinished() int { return s.Waiting + s.Active + s.Delayed + s.Retrying }

// Finish makes a queue take no new jobs, as Close does, and returns when what it has is worked off: its waiting, running,
// delayed and retrying jobs. progress, unless it is nil, is told how many are left whenever that has changed, several times a
// second at most. The queue stays closed, until Open or Resume; parked jobs stay parked. A queue that is paused, or that nobody
// works on, is never worked off, so ctx should have a deadline: when it ends the error wraps ctx's, and its cause. A Redis that
// does not answer is waited for. Other errors are Close's, that somebody has opened the queue meanwhile, or that Redis cannot be
// asked: it refuses, or the client is closed.
func (j *Jobs) Finish(ctx context.Context, queue string, h *Hold, progress func(left int)) error {
	if _, err := j.Close(ctx, queue, h); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", err, endOf(ctx))
		}
		return err
	}
	const look = 200 * time.Millisecond
	for last := -1; ; {
		closed, err := j.held(ctx, ownKey(queue, "closed"), ownKey(queue, "closing"))
		var s *Status
		if err == nil {
			s, err = j.readDepth(ctx, queue)
		}
		switch {
		case err != nil && ctx.Err() == nil && (answered(err) && !passing(err) || errors.Is(err, redis.ErrClosed) || errors.Is(err, errDepth)):
			return fmt.Errorf("queue: finish %q: %w", queue, err)
		case err != nil: // Redis is away: it may come back
		case closed == nil:
			return fmt.Errorf("queue: finish %q: it takes jobs again, %d are left", queue, s.unfinished())
		default:
			if left := s.unfinished(); left != last {
				last = left
				if progress != nil {
					progress(left)
				}
			}
			if last == 0 {
				return nil
			}
		}
		if !sleep(ctx, look) {
			return fmt.Errorf("queue: finish %q: %s, it stays closed: %w", queue, whatIsLeft(s), endOf(ctx))
		}
	}
}

// endOf is why a context has ended, with its cause.
func endOf(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause != err {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

func whatIsLeft(s *Status) string {
	if s == nil {
		return "not known how many jobs are left"
	}
	text := fmt.Sprintf("%d waiting, %d running, %d delayed and %d retrying jobs are left", s.Waiting, s.Active, s.Delayed, s.Retrying)
	if s.Paused {
		text += " and it is paused"
	}
	return text
}
