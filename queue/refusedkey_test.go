package queue

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// threeStored stores jobs ok0, no1 and ok2, oldest first, in one of the states.
func threeStored(t *testing.T, rdb redis.UniversalClient, q string, state State) {
	t.Helper()
	j := newJobs(t, rdb, nil, Queue{Name: q})
	key, list := state.key(q)
	for i, id := range []string{"ok0", "no1", "ok2"} {
		enqueue(t, j, q, 1, ID(id), Unique(time.Duration(i+1)*time.Hour))
		rdb.Del(t.Context(), rdb.HGet(t.Context(), taskPrefix(q)+id, "unique_key").Val()) // all of one payload
		if !list {
			rdb.LRem(t.Context(), asynqKey(q, "pending"), 0, id)
			rdb.ZAdd(t.Context(), key, redis.Z{Score: float64(i) + 1, Member: id})
		}
	}
}

// order lists what is stored in a state, the oldest first, with its scores.
func order(t *testing.T, rdb redis.UniversalClient, q string, state State) string {
	t.Helper()
	key, list := state.key(q)
	if list {
		ids := rdb.LRange(t.Context(), key, 0, -1).Val()
		slices.Reverse(ids)
		return fmt.Sprint(ids)
	}
	return fmt.Sprint(rdb.ZRangeWithScores(t.Context(), key, 0, -1).Val())
}

// forwarding is how asynq asks for jobs whose time has come.
func forwarding(t *testing.T, rdb redis.UniversalClient, q string, state State) (int, error) {
	t.Helper()
	j := newJobs(t, rdb, nil, Queue{Name: q})
	f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil)
	key, _ := state.key(q)
	return f.forward(t.Context(), []string{key, asynqKey(q, "pending")}, []any{0, taskPrefix(q), 0, asynqKey(q, "g:")}, nil).Int()
}

// What goes through the jobs of a list passes one whose key is no job's, or is gone, and leaves nothing of it.
func TestKeyThatIsNoJobIsPassed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, c := range map[string]struct {
			state State
			do    func(j *Jobs, q string) (int, error)
			done  int
			gone  bool
		}{
			"delayed":  {Delayed, func(_ *Jobs, q string) (int, error) { return forwarding(t, rdb, q, Delayed) }, 3, false},
			"retrying": {Retrying, func(_ *Jobs, q string) (int, error) { return forwarding(t, rdb, q, Retrying) }, 3, false},
			"failed":   {Failed, func(j *Jobs, q string) (int, error) { return j.RetryFailed(t.Context(), q, nil) }, 2, false},
			"purged":   {Failed, func(j *Jobs, q string) (int, error) { return j.Purge(t.Context(), q, Failed) }, 3, false},
			"waiting":  {Waiting, func(j *Jobs, q string) (int, error) { return j.Purge(t.Context(), q, Waiting) }, 3, false},
			"lost":     {Delayed, func(_ *Jobs, q string) (int, error) { return forwarding(t, rdb, q, Delayed) }, 3, true},
			"removed":  {Failed, func(j *Jobs, q string) (int, error) { return j.Purge(t.Context(), q, Failed) }, 3, true},
		} {
			q := fresh("passed")
			threeStored(t, rdb, q, c.state)
			if rdb.Del(t.Context(), taskPrefix(q)+"no1"); !c.gone {
				rdb.Set(t.Context(), taskPrefix(q)+"no1", "x", 0)
			}
			if n, err := c.do(newJobs(t, rdb, nil, Queue{Name: q}), q); n != c.done || err != nil {
				t.Errorf("%s: %d, %v, want %d", name, n, err, c.done)
			}
			want := "[ok0 ok2]"
			if c.done == 3 && name != "delayed" && name != "retrying" && name != "lost" {
				want = "[]"
				if keys := keysOf(t, rdb, q); len(keys) != 0 {
					t.Errorf("%s: %q are left", name, keys)
				}
			}
			if c.gone && rdb.Exists(t.Context(), taskPrefix(q)+"no1").Val() != 0 {
				t.Errorf("%s: %q is left of it", name, rdb.HGetAll(t.Context(), taskPrefix(q)+"no1").Val())
			}
			if got := order(t, rdb, q, Waiting); got != want || c.state != Waiting && order(t, rdb, q, c.state) != "[]" {
				t.Errorf("%s: %s wait, want %s, and the others are %s", name, got, want, order(t, rdb, q, c.state))
			}
		}
	})
}

// One that Redis refuses ends it: that job and those behind it stay as they were, and are done when it may be had.
func TestRefusedKeyStaysWithThoseBehind(t *testing.T) {
	t.Parallel()
	server := alone(t)
	all, rdb := client(t, server.Addrs()), limited(t, server.Addrs()[0])
	for name, c := range map[string]struct {
		state State
		do    func(rdb redis.UniversalClient, q string) (int, error)
	}{
		"delayed": {Delayed, func(rdb redis.UniversalClient, q string) (int, error) {
			n, err := forwarding(t, rdb, q, Delayed)
			if err == nil && n == 1 {
				_, err = forwarding(t, rdb, q, Delayed)
			}
			return n, err
		}},
		"failed": {Failed, func(rdb redis.UniversalClient, q string) (int, error) {
			return newJobs(t, rdb, nil, Queue{Name: q}).RetryFailed(t.Context(), q, nil)
		}},
		"purged": {Failed, func(rdb redis.UniversalClient, q string) (int, error) {
			return newJobs(t, rdb, nil, Queue{Name: q}).Purge(t.Context(), q, Failed)
		}},
		"waiting": {Waiting, func(rdb redis.UniversalClient, q string) (int, error) {
			return newJobs(t, rdb, nil, Queue{Name: q}).Purge(t.Context(), q, Waiting)
		}},
	} {
		q := fresh("stays")
		threeStored(t, all, q, c.state)
		want := "[{2 no1} {3 ok2}]"
		if c.state == Waiting {
			want = "[no1 ok2]"
		}
		if n, err := c.do(rdb, q); n != 1 || err == nil || !answered(err) || order(t, all, q, c.state) != want {
			t.Errorf("%s: %d, %v, and %s stay, want %s", name, n, err, order(t, all, q, c.state), want)
		}
		if kept := all.Exists(t.Context(), taskPrefix(q)+"no1", taskPrefix(q)+"ok2").Val(); kept != 2 {
			t.Errorf("%s: of two jobs %d have their data", name, kept)
		}
		if n, err := c.do(all, q); n != 2 || err != nil {
			t.Errorf("%s: then %d, %v", name, n, err)
		}
	}
}

// While the list of waiting jobs is something else, nothing leaves its place for it.
func TestNothingIsMovedToWhatIsNoList(t *testing.T) {
	t.Parallel()
	rdb := client(t, alone(t).Addrs()) // no other test is to list such a queue
	for name, c := range map[string]struct {
		state State
		do    func(j *Jobs, q string) error
	}{
		"delayed": {Delayed, func(_ *Jobs, q string) error { _, err := forwarding(t, rdb, q, Delayed); return err }},
		"failed":  {Failed, func(j *Jobs, q string) error { _, err := j.RetryFailed(t.Context(), q, nil); return err }},
	} {
		q := fresh("no-list")
		threeStored(t, rdb, q, c.state)
		rdb.Set(t.Context(), asynqKey(q, "pending"), "x", 0)
		if err := c.do(newJobs(t, rdb, nil, Queue{Name: q}), q); err == nil || order(t, rdb, q, c.state) != "[{1 ok0} {2 no1} {3 ok2}]" {
			t.Errorf("%s: %v, and %s stay", name, err, order(t, rdb, q, c.state))
		}
	}
}

// The reaper drops a running ID whose key is no job's, and leaves a job that it cannot give to anybody as it is.
func TestReaperMeetsBrokenKeys(t *testing.T) {
	t.Parallel()
	rdb := client(t, alone(t).Addrs()) // no other test is to list such a queue
	ctx := t.Context()
	for name, stalls := range map[string]int{"pending": 0, "archived": maxStalls} {
		q := fresh("reaped")
		f, _ := twoRunning(t, rdb, q)
		a, b := f.ready[0].id, f.ready[1].id
		reap := func(id string) error {
			return f.reap(ctx, id, formatScore(redis.Z{Score: rdb.ZScore(ctx, asynqKey(q, "lease"), id).Val()}))
		}
		rdb.Del(ctx, taskPrefix(q)+a)
		rdb.Set(ctx, taskPrefix(q)+a, "x", 0)
		if err := reap(a); err != nil || rdb.LPos(ctx, asynqKey(q, "active"), a, redis.LPosArgs{}).Err() == nil {
			t.Errorf("%s: an ID without a job was not dropped: %v", name, err)
		}
		rdb.HSet(ctx, taskPrefix(q)+b, "stalls", stalls)
		rdb.Del(ctx, asynqKey(q, name))
		rdb.Set(ctx, asynqKey(q, name), "x", 0)
		if err := reap(b); err == nil || whole(t, rdb, q, b) != "running" || rdb.HGet(ctx, taskPrefix(q)+b, "stalls").Val() != fmt.Sprint(stalls) {
			t.Errorf("%s: a job that can go nowhere: %v", name, err)
		}
		rdb.Del(ctx, asynqKey(q, name))
		if err := reap(b); err != nil {
			t.Errorf("%s: then %v", name, err)
		}
		s := status(t, newJobs(t, rdb, nil, Queue{Name: q}), q)
		if got := map[string]int{"pending": s.Waiting, "archived": s.Failed}[name]; got != 1 {
			t.Errorf("%s: then %+v", name, s)
		}
	}
}
