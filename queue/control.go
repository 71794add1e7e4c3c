package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// step bounds how many jobs one script moves, and with it how long Redis serves nobody else.
const step = 500

// Pause stops the start of jobs of a queue in the whole fleet; running ones go on and new ones are accepted. It
// reports whether it changed anything. asynq's tools see and undo it, as it is their own pause.
func (j *Jobs) Pause(ctx context.Context, queue string) (bool, error) {
	if err := j.known(ctx, queue); err != nil {
		return false, err
	}
	changed, err := j.rdb.SetNX(ctx, asynqKey(queue, "paused"), time.Now().Unix(), 0).Result()
	if err != nil {
		return false, fmt.Errorf("queue: pause %q: %w", queue, err)
	}
	return changed, nil
}

// Resume undoes Pause and Park. It reports whether the queue was paused and how many parked jobs are back, at the
// head of the queue in their old order.
func (j *Jobs) Resume(ctx context.Context, queue string) (wasPaused bool, unparked int, err error) {
	if err := j.known(ctx, queue); err != nil {
		return false, 0, err
	}
	n, err := j.rdb.Del(ctx, asynqKey(queue, "paused")).Result()
	if err != nil {
		return false, 0, fmt.Errorf("queue: resume %q: %w", queue, err)
	}
	unparked, err = j.batched(ctx, queue, "unpark", ownKey(queue, "parked"), func(size int) *redis.Cmd {
		return moveScript.Run(ctx, j.rdb, []string{ownKey(queue, "parked"), asynqKey(queue, "pending")}, size, "LEFT", "RIGHT")
	})
	return n > 0, unparked, err
}

// Park sets all waiting jobs of a queue aside until Resume. Running, delayed and retrying jobs stay, new ones are
// accepted. It returns how many were set aside.
func (j *Jobs) Park(ctx context.Context, queue string) (int, error) {
	if err := j.known(ctx, queue); err != nil {
		return 0, err
	}
	return j.batched(ctx, queue, "park", asynqKey(queue, "pending"), func(size int) *redis.Cmd {
		return moveScript.Run(ctx, j.rdb, []string{asynqKey(queue, "pending"), ownKey(queue, "parked")}, size, "RIGHT", "LEFT")
	})
}

// Discard deletes all waiting jobs of a queue for good. Running, delayed, retrying and parked jobs stay. It returns
// how many were deleted.
func (j *Jobs) Discard(ctx context.Context, queue string) (int, error) {
	if err := j.known(ctx, queue); err != nil {
		return 0, err
	}
	return j.batched(ctx, queue, "discard", asynqKey(queue, "pending"), func(size int) *redis.Cmd {
		return discardScript.Run(ctx, j.rdb, []string{asynqKey(queue, "pending")}, taskPrefix(queue), size)
	})
}

// RetryFailed gives the failed jobs of a queue a fresh set of attempts, the oldest first, behind the waiting ones. It
// returns how many.
func (j *Jobs) RetryFailed(ctx context.Context, queue string) (int, error) {
	if err := j.known(ctx, queue); err != nil {
		return 0, err
	}
	left, err := j.rdb.ZCard(ctx, asynqKey(queue, "archived")).Result()
	if err != nil {
		return 0, fmt.Errorf("queue: count failed jobs of %q: %w", queue, err)
	}
	moved := 0
	for left > 0 { // at most those that had failed when the call began
		n, err := retryScript.Run(ctx, j.rdb, []string{asynqKey(queue, "archived"), asynqKey(queue, "pending")},
			taskPrefix(queue), min(left, step), time.Now().UnixNano()).Int64Slice()
		if err != nil || len(n) != 2 {
			return moved, fmt.Errorf("queue: retry failed jobs of %q, %d are retried so far: %w", queue, moved, err)
		}
		if n[0] == 0 {
			break
		}
		left -= n[0]
		moved += int(n[1])
	}
	return moved, nil
}

// batched repeats a script on the list at key for as many jobs as it has now, a step at a time.
func (j *Jobs) batched(ctx context.Context, queue, verb, key string, run func(size int) *redis.Cmd) (int, error) {
	left, err := j.rdb.LLen(ctx, key).Result()
	if err != nil {
		return 0, fmt.Errorf("queue: %s jobs of %q: %w", verb, queue, err)
	}
	moved := 0
	for left > 0 {
		size := min(int(left), step)
		n, err := run(size).Int()
		moved += n
		if err != nil {
			return moved, fmt.Errorf("queue: %s jobs of %q, %d are done so far: %w", verb, queue, moved, err)
		}
		if n < size {
			break
		}
		left -= int64(n)
	}
	return moved, nil
}
