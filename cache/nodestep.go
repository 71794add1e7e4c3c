package cache

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// nodeStep is what one step on a node has done, which named some of its keys and changed them there.
type nodeStep struct {
	next             uint64 // cursor, 0 at the end
	found            int    // keys that the pattern named, with the store's own
	named            int64  // without those
	changed, skipped int64
	refused          []string // by the node, as slots move
}

// scripted applies a script to keys: on the node that names them, many at a time, and to each that this node refuses through
// the store's client.
func (s *Store) scripted(ctx context.Context, script ttlScript, args ...any) change {
	s.preload(ctx, script.step)
	return change{
		atOnce: 1,
		do: func(ctx context.Context, _ *redis.Client, keys []string) (changed, skipped int64, err error) {
			ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
			defer cancel()
			return s.oneByOne(ctx, script.one, keys, args)
		},
		step: func(ctx context.Context, node *redis.Client, cursor uint64, match string, count int64) (nodeStep, error) {
			ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
			defer cancel()
			all := append(slices.Clone(args), strconv.FormatUint(cursor, 10), match, count, s.opts.Prefix, metaMark)
			return parseStep(script.step.Run(ctx, node, nil, all...).Slice())
		},
	}
}

// preload saves the first step of each node from being refused; a failure costs only that.
func (s *Store) preload(ctx context.Context, script *redis.Script) {
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	_ = redisclient.EachMaster(ctx, s.rdb, func(ctx context.Context, node *redis.Client) error {
		return script.Load(ctx, node).Err()
	})
}

var errStepReply = errors.New("cache: a script that names keys answered in no known form")

func parseStep(reply []any, err error) (nodeStep, error) {
	if err != nil {
		return nodeStep{}, err
	}
	if len(reply) != 6 {
		return nodeStep{}, errStepReply
	}
	var numbers [4]int64
	for i := range numbers {
		n, ok := reply[1+i].(int64)
		if !ok || n < 0 {
			return nodeStep{}, errStepReply
		}
		numbers[i] = n
	}
	text, _ := reply[0].(string)
	cursor, err := strconv.ParseUint(text, 10, 64)
	refused, ok := reply[5].([]any)
	if err != nil || !ok {
		return nodeStep{}, errStepReply
	}
	step := nodeStep{next: cursor, found: int(numbers[0]), named: numbers[1], changed: numbers[2], skipped: numbers[3]}
	for _, r := range refused {
		key, ok := r.(string)
		if !ok {
			return nodeStep{}, errStepReply
		}
		step.refused = append(step.refused, key)
	}
	return step, nil
}

// stepNode has one node name its keys and change them, step by step. A node that refuses such scripts is asked for the names.
func (s *Store) stepNode(ctx context.Context, node *redis.Client, pattern string, pause time.Duration, do change, mine *NodeReport) error {
	match, count := s.opts.Prefix+pattern, scanCount(pause)
	var cursor uint64
	var work pace
	for {
		step, err := do.step(ctx, node, cursor, match, count)
		if refusal := redis.Error(nil); errors.As(err, &refusal) {
			do.step = nil
			return s.sweepNode(ctx, node, pattern, pause, do, mine)
		}
		if err != nil {
			return err
		}
		mine.Scanned += step.named
		mine.Changed += step.changed
		mine.Skipped += step.skipped
		if len(step.refused) > 0 {
			if err := do.apply(ctx, node, step.refused, mine); err != nil {
				return err
			}
		}
		if cursor = step.next; cursor == 0 {
			return ctx.Err()
		}
		if work.tires(step.found, int(count)) {
			if err := sleep(ctx, pause/politeParts); err != nil {
				return err
			}
		}
	}
}

// inTurns lets so many nodes at once be in a step.
func (c change) inTurns(nodes int) change {
	step, turns := c.step, make(chan struct{}, nodes)
	c.step = func(ctx context.Context, node *redis.Client, cursor uint64, match string, count int64) (nodeStep, error) {
		turns <- struct{}{}
		defer func() { <-turns }()
		return step(ctx, node, cursor, match, count)
	}
	return c
}

// oneByOne applies a script to each key through the store's client, which follows slots that move.
func (s *Store) oneByOne(ctx context.Context, script *redis.Script, keys []string, args []any) (changed, skipped int64, err error) {
	pipe := s.rdb.Pipeline()
	commands := make([]*redis.Cmd, len(keys))
	for i, key := range keys {
		commands[i] = script.EvalSha(ctx, pipe, []string{key}, args...)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i, cmd := range commands {
		if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
			commands[i] = script.Eval(ctx, pipe, []string{keys[i]}, args...)
		}
	}
	_, _ = pipe.Exec(ctx)
	var errs []error
	for i, cmd := range commands {
		if redirected(cmd.Err()) {
			cmd = script.Run(ctx, s.rdb, []string{keys[i]}, args...)
		}
		switch n, err := cmd.Int64(); {
		case err != nil:
			errs = append(errs, err)
		case n < 0:
			skipped++
		default:
			changed += n
		}
	}
	return changed, skipped, firstOf(errs)
}
