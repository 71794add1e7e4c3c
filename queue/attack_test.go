package queue

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// Jobs that were put into Redis past this package, with headers that it keeps to itself or with what is no job at all,
// harm nobody: the worker goes on, well-formed payloads run, and no made-up position is passed on as one.
func TestForgedJobs(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("forged")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 1) // makes the queue known
		ctx := t.Context()
		forger := asynq.NewClientFromRedisClient(rdb)
		headers := []map[string]string{
			{headerTokens: "rubbish"}, {headerTokens: "1:1:0/1,1:1:0/2"}, {headerTokens: strings.Repeat("9", 1<<20)}, {headerTokens: "18446744073709551615:4294967295:FFFFFFFF/FFFFFFFF\x00"},
			{headerTokens: "-1:1:0/0"}, {headerTokens: "1:1:0/0\r\nX: y"}, {headerAttempt: strings.Repeat("x", 1<<20)}, {"": "", "\x00": "\x00", "{": "}"}, {"scaleaware-unknown": "1"},
		}
		for i, h := range headers {
			if _, err := forger.EnqueueContext(ctx, asynq.NewTaskWithHeaders("test.note", fmt.Appendf(nil, `{"n":%d}`, i+1), h), asynq.Queue(q)); err != nil {
				t.Fatal(err)
			}
		}
		for i, payload := range []string{"", "rubbish", "null", `{"n":1e309}`, `{"n":"x"}`, strings.Repeat("[", 100_000), "\x00\xff"} {
			if _, err := forger.EnqueueContext(ctx, asynq.NewTask("test.note", []byte(payload)), asynq.Queue(q), asynq.TaskID(fmt.Sprint("payload", i)), asynq.MaxRetry(0)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := forger.EnqueueContext(ctx, asynq.NewTask("no\x00 such{kind}", nil), asynq.Queue(q), asynq.MaxRetry(0)); err != nil {
			t.Fatal(err)
		}
		for id, fields := range map[string][]any{
			"raw-rubbish": {"msg", "rubbish", "state", "pending"}, "raw-empty": {"msg", "", "state", "pending"}, "raw-state": {"msg", "\x0a\xff\xff\xff\xff\x0f", "state", "nan", "timeout", "1e309", "deadline", "-1"},
			"raw-none": {"x", "y"},
		} {
			if err := rdb.HSet(ctx, taskPrefix(q)+id, fields...).Err(); err != nil {
				t.Fatal(err)
			}
			if err := rdb.LPush(ctx, asynqKey(q, "pending"), id).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range []string{"nobody's", "", "a b", "{x}", "\x00", strings.Repeat("x", 10_000)} {
			if err := rdb.LPush(ctx, asynqKey(q, "pending"), id).Err(); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		ran, trusted := map[int]int{}, map[int]string{}
		w := newWorker(t, j, nil)
		Handle(w, func(ctx context.Context, job note) error {
			tokens, _ := scaleaware.WatermarkFrom(ctx).Written(ctx)
			mu.Lock()
			defer mu.Unlock()
			ran[job.N]++
			trusted[job.N] = tokens.String()
			return nil
		})
		stop := start(t, w)
		enqueue(t, j, q, 1, ID("last"))
		eventually(t, 30*time.Second, "all that can run has run", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(ran) > len(headers) && ran[0] >= 2
		})
		stop()
		for n, tokens := range trusted {
			if tokens != "" && n != 2 { // two positions of one database are merged: anybody who can write jobs can ask for that
				t.Errorf("job %d asks for %q", n, tokens)
			}
		}
	})
}

// Reasons, owners and IDs are data to the scripts.
func TestHostileTextsAreData(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		a, b := fresh("mine"), fresh("other")
		j := newJobs(t, rdb, nil, Queue{Name: a}, Queue{Name: b})
		enqueue(t, j, a, 3)
		enqueue(t, j, b, 3)
		for _, text := range []string{
			"\x00", `"`, `'`, "]]", `]==] .. redis.call("FLUSHALL") --[==[`, `"); redis.call("FLUSHALL") --`, "\r\n*1\r\n$8\r\nFLUSHALL\r\n", "1e309", "nan", "-0", "0", "{" + b + "}", "*", "%s%n", "\xff", strings.Repeat("x", 128),
		} {
			if changed, err := j.Pause(t.Context(), a, &Hold{Reason: text, Owner: text}); err != nil || !changed {
				t.Fatalf("pause by %.20q: %v, %v", text, changed, err)
			}
			if s := status(t, j, a); !s.Paused || s.Waiting != 3 {
				t.Errorf("by %.20q: %+v", text, s)
			}
			if _, err := j.Pause(t.Context(), a, &Hold{Owner: text + "'"}); text != strings.Repeat("x", 128) && err == nil {
				t.Errorf("%.20q is taken for another owner", text)
			}
			if _, err := j.Pause(t.Context(), a, &Hold{Reason: text, Owner: text}); err != nil {
				t.Errorf("%.20q again: %v", text, err)
			}
			if _, err := j.Pause(t.Context(), a, &Hold{Owner: "."}); err == nil {
				t.Errorf("%.20q is taken for an owner whose name is a pattern", text)
			}
			if s := status(t, j, b); s.Paused || s.Waiting != 3 {
				t.Errorf("the other queue, by %.20q: %+v", text, s)
			}
			if got := rdb.HGetAll(t.Context(), ownKey(a, "paused")).Val(); got["reason"] != text || got["owner"] != text {
				t.Errorf("%.20q is stored as %v", text, got)
			}
			if changed, err := j.Unpause(t.Context(), a, text); err != nil || !changed {
				t.Errorf("resume by %.20q: %v, %v", text, changed, err)
			}
			if _, err := j.Pause(t.Context(), text, nil); err == nil {
				t.Errorf("%.20q is a queue", text)
			}
		}
	})
}
