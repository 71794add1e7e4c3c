package queue

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// ending is how one running job ended.
type ending struct {
	verb    string // done, complete, retry, archive or back
	id      string
	owner   string // "" for a job that was not fetched here
	msg     string // of a job that goes back it is the start that it has not used, or ""
	score   string
	unique  string
	counted bool
}

// ender records ends, of many jobs with one command: while one call is under way, what ends meanwhile waits for the next.
// So a lone end does not wait, nor for another goroutine, and a flood costs few round trips.
type ender struct {
	jobs  *Jobs
	queue string

	mu      sync.Mutex
	waiting []endCall
	calling bool
}

type endCall struct {
	ending
	reply chan endReply
}

type endReply struct {
	text string
	err  error
}

// endBatch is the most ends in one call, and keeps Redis from serving nobody else for long.
const endBatch = 128

// end records one end. It returns "OK" or "NOT FOUND", or why that is not known.
func (e *ender) end(ctx context.Context, x ending) (string, error) {
	e.mu.Lock()
	if !e.calling {
		e.calling = true
		e.mu.Unlock()
		return e.alone(ctx, x)
	}
	c := endCall{x, make(chan endReply, 1)}
	e.waiting = append(e.waiting, c)
	e.mu.Unlock()
	select {
	case r := <-c.reply:
		return r.text, r.err
	case <-ctx.Done():
		return "", ctx.Err() // it may still be recorded
	}
}

// alone calls Redis for one end. Whoever came meanwhile is worked for.
func (e *ender) alone(ctx context.Context, x ending) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, popTimeout)
	defer cancel()
	r := e.call(ctx, []ending{x})[0]
	e.mu.Lock()
	if e.calling = len(e.waiting) > 0; e.calling {
		go e.work() // #nosec G118 -- it works for all callers, of whom any may leave
	}
	e.mu.Unlock()
	return r.text, r.err
}

// work calls Redis until nobody waits.
func (e *ender) work() {
	for {
		e.mu.Lock()
		n := min(len(e.waiting), endBatch)
		batch := e.waiting[:n:n]
		e.waiting = e.waiting[n:]
		if n == 0 {
			e.waiting, e.calling = nil, false
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), popTimeout)
		ends := make([]ending, n)
		for i, c := range batch {
			ends[i] = c.ending
		}
		replies := e.call(ctx, ends)
		cancel()
		for i, c := range batch {
			c.reply <- replies[i]
		}
	}
}

// call ends a batch and returns what became of each.
func (e *ender) call(ctx context.Context, batch []ending) []endReply {
	script, keys, args := e.script(batch)
	return endReplies(script.Run(ctx, once{e.jobs.rdb}, keys, args...), len(batch))
}

// script is what records a batch.
func (e *ender) script(batch []ending) (script *redis.Script, keys []string, args []any) {
	const statsLife = 90 * 24 * time.Hour // as asynq's
	now := time.Now()
	day, expiry := now.UTC().Format(time.DateOnly), now.Add(statsLife).Unix()
	if x := batch[0]; len(batch) == 1 && x.verb == "done" && x.owner != "" {
		keys = []string{
			asynqKey(e.queue, "active"), asynqKey(e.queue, "lease"), taskPrefix(e.queue) + x.id,
			asynqKey(e.queue, "processed:"+day), asynqKey(e.queue, "processed"),
		}
		if x.unique != "" {
			keys = append(keys, x.unique)
		}
		return doneScript, keys, []any{x.id, x.owner, expiry}
	}
	names := []string{"active", "lease", "pending", "retry", "archived", "completed", "processed:" + day, "processed", "failed:" + day, "failed"}
	keys = make([]string, len(names))
	for i, name := range names {
		keys[i] = asynqKey(e.queue, name)
	}
	args = make([]any, 0, 4+7*len(batch))
	args = append(args, taskPrefix(e.queue), now.Unix(), now.UnixNano(), expiry)
	starts := false
	for _, c := range batch {
		starts = starts || c.verb == "back" && c.msg != ""
		counted := ""
		if c.counted {
			counted = "1"
		}
		args = append(args, c.verb, c.id, c.owner, c.msg, c.score, c.unique, counted)
	}
	if starts {
		keys = append(keys, ownKey(e.queue, "starts"))
	}
	return endScript, keys, args
}

// endReplies reads what the script has answered.
func endReplies(cmd *redis.Cmd, n int) []endReply {
	answers, err := cmd.Slice()
	if err == nil && len(answers) != n {
		err = fmt.Errorf("queue: the end script answered %d of %d", len(answers), n)
	}
	replies := make([]endReply, n)
	for i := range replies {
		if replies[i].err = err; err != nil {
			continue
		}
		if why, refused := refusalOf(answers[i]); refused {
			replies[i].err = why
		} else if text, ok := answers[i].(string); ok {
			replies[i].text = text
		} else {
			replies[i].err = fmt.Errorf("queue: the end script answered with a %T", answers[i])
		}
	}
	return replies
}

// endingOf reads one of asynq's scripts that end a job, by its keys; false means one that is not known.
func endingOf(queue string, keys []string, args []any) (ending, bool) {
	key := func(i int) string {
		if i < len(keys) {
			return keys[i]
		}
		return ""
	}
	x := ending{id: text(args[0])}
	active, lease, task := asynqKey(queue, "active"), asynqKey(queue, "lease"), taskPrefix(queue)+x.id
	ends := key(0) == active && key(1) == lease
	fails := key(0) == task && key(1) == active && key(2) == lease
	switch {
	case ends && key(2) == task && len(args) == 3:
		x.verb, x.unique = "done", key(5)
	case ends && key(2) == asynqKey(queue, "completed") && key(3) == task && len(args) == 5:
		x.verb, x.score, x.msg, x.unique = "complete", text(args[2]), text(args[3]), key(6)
	case ends && key(2) == asynqKey(queue, "pending") && key(3) == task && len(args) == 1:
		x.verb = "back"
	case fails && key(3) == asynqKey(queue, "retry") && len(args) == 6:
		x.verb, x.msg, x.score, x.counted = "retry", text(args[1]), text(args[2]), args[4] == any(true)
	case fails && key(3) == asynqKey(queue, "archived") && len(args) == 7:
		x.verb, x.msg, x.score = "archive", text(args[1]), text(args[2])
	default:
		return x, false
	}
	return x, true
}

func text(arg any) string {
	switch v := arg.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case int64:
		return strconv.FormatInt(v, 10)
	default:
		return fmt.Sprint(v)
	}
}
