package queue

import (
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// moving begins to move a queue's slot to another master, with these of its keys, and returns what moves the rest.
func moving(t *testing.T, rdb redis.UniversalClient, q string, keys ...string) (finish func()) {
	t.Helper()
	c, ctx := cluster.Get(t), t.Context()
	slot, err := c.Slot(ctx, taskPrefix(q))
	if err != nil {
		t.Fatal(err)
	}
	masters, err := c.Masters(ctx)
	if err != nil {
		t.Fatal(err)
	}
	from, err := c.MasterOf(ctx, slot)
	if err != nil {
		t.Fatal(err)
	}
	to := masters[slices.IndexFunc(masters, func(n *rediscluster.Node) bool { return n.Addr() != from.Addr() })]
	m, err := c.BeginMigration(ctx, slot, to)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.MoveKeys(ctx, keys...); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		for {
			n, err := m.Move(ctx, 100)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
		}
		if err := m.Finish(ctx); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "the client knows where the slot is", func() bool { return rdb.LLen(ctx, asynqKey(q, "active")).Err() == nil })
	}
}

// countedToday makes the counters of ended jobs be there: while a slot moves, Redis tells a script with keys that are not to try again.
func countedToday(t *testing.T, rdb redis.UniversalClient, q string) (counters []string) {
	t.Helper()
	day := time.Now().UTC().Format(time.DateOnly)
	for _, name := range []string{"processed:" + day, "processed", "failed:" + day, "failed"} {
		counters = append(counters, asynqKey(q, name))
		rdb.Set(t.Context(), asynqKey(q, name), 1, 0)
	}
	return counters
}

// A job that has gone to another node with half of its slot ends when the rest is there, too.
func TestEndsWhileTheSlotMoves(t *testing.T) {
	t.Parallel()
	ctx, rdb, q := t.Context(), client(t, cluster.Get(t).Addrs()), fresh("moving")
	f, end := twoRunning(t, rdb, q)
	a, b := f.ready[0].id, f.ready[1].id
	for _, name := range []string{"retry", "archived", "completed"} {
		rdb.ZAdd(ctx, asynqKey(q, name), redis.Z{Score: 1, Member: "x"})
	}
	rdb.LPush(ctx, asynqKey(q, "pending"), "x")
	countedToday(t, rdb, q)
	finish := moving(t, rdb, q, taskPrefix(q)+b)
	replies := end("done", "done")
	if replies[0].text != "OK" || replies[0].err != nil {
		t.Errorf("the first: %v", replies[0])
	}
	if replies[1].err == nil || !passing(replies[1].err) {
		t.Errorf("the second: %v, want what passes", replies[1])
	}
	finish()
	if whole(t, rdb, q, a) != "gone" || whole(t, rdb, q, b) != "running" {
		t.Errorf("the first is not gone, or the second one is")
	}
	if reply := end("done", "done")[1]; reply.text != "OK" || whole(t, rdb, q, b) != "gone" {
		t.Errorf("then the second: %v", reply)
	}
}

// A job whose lock is the last of it to move ends when that is there, too, with its lock.
func TestEndLeavesNoLockBehind(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), client(t, cluster.Get(t).Addrs())
	for name, verbs := range map[string][]string{"alone": {"done"}, "beside another": {"done", "done"}} {
		q := fresh("lock")
		f, end := twoRunning(t, rdb, q)
		a := f.ready[0].id
		lock := rdb.HGet(ctx, taskPrefix(q)+a, "unique_key").Val()
		moved := append(countedToday(t, rdb, q), asynqKey(q, "active"), asynqKey(q, "lease"), taskPrefix(q)+a, asynqKey(q, "pending"))
		rdb.LPush(ctx, asynqKey(q, "pending"), "x")
		for _, set := range []string{"retry", "archived", "completed"} {
			rdb.ZAdd(ctx, asynqKey(q, set), redis.Z{Score: 1, Member: "x"})
			moved = append(moved, asynqKey(q, set))
		}
		finish := moving(t, rdb, q, moved...)
		if reply := end(verbs...)[0]; reply.err == nil || !passing(reply.err) {
			t.Errorf("%s: %v, want what passes", name, reply)
		}
		finish()
		if reply := end(verbs...)[0]; reply.text != "OK" || whole(t, rdb, q, a) != "gone" || rdb.Exists(ctx, lock).Val() != 0 {
			t.Errorf("%s: then %v, and its lock is %q", name, reply, rdb.Get(ctx, lock).Val())
		}
	}
}

// While a slot moves, what goes through a list neither loses jobs nor lists them twice, wherever they are, and goes on when all is there.
func TestListsKeepTheirJobsWhileTheSlotMoves(t *testing.T) {
	t.Parallel()
	rdb := client(t, cluster.Get(t).Addrs())
	purge := func(of State) func(j *Jobs, q string) (int, error) {
		return func(j *Jobs, q string) (int, error) { return j.Purge(t.Context(), q, of) }
	}
	forward := func(of State) func(j *Jobs, q string) (int, error) {
		return func(_ *Jobs, q string) (int, error) { return forwarding(t, rdb, q, of) }
	}
	retry := func(j *Jobs, q string) (int, error) { return j.RetryFailed(t.Context(), q, nil) }
	for name, c := range map[string]struct {
		state State
		do    func(j *Jobs, q string) (int, error)
		waits string // afterwards
	}{
		"purge waiting": {Waiting, purge(Waiting), "[]"}, "purge failed": {Failed, purge(Failed), "[x]"},
		"retry": {Failed, retry, "[x ok0 no1 ok2]"}, "delayed": {Delayed, forward(Delayed), "[x ok0 no1 ok2]"},
	} {
		for _, which := range []string{"a job", "the lists", "the lists and a job"} {
			t.Run(name+" where "+which+" moved", func(t *testing.T) {
				q, ctx := fresh("lists"), t.Context()
				key, list := c.state.key(q)
				if !list {
					rdb.LPush(ctx, asynqKey(q, "pending"), "x")
				}
				threeStored(t, rdb, q, c.state)
				before := order(t, rdb, q, c.state)
				moved := map[string][]string{"a job": {taskPrefix(q) + "no1"}, "the lists": {key}, "the lists and a job": {key, taskPrefix(q) + "ok0"}}[which]
				if !list && which != "a job" {
					moved = append(moved, asynqKey(q, "pending"))
				}
				j, finish := newJobs(t, rdb, nil, Queue{Name: q}), moving(t, rdb, q, moved...)
				n, err := c.do(j, q)
				finish()
				if err != nil && !passing(err) {
					t.Errorf("meanwhile: %v, want what passes", err)
				}
				if which == "the lists" && n != 0 || n == 3 {
					t.Errorf("%d are done", n)
				}
				if n == 0 && order(t, rdb, q, c.state) != before {
					t.Errorf("none is done, and %s stay of %s", order(t, rdb, q, c.state), before)
				}
				if kept := rdb.Exists(ctx, taskPrefix(q)+"ok0", taskPrefix(q)+"no1", taskPrefix(q)+"ok2").Val(); kept == 0 || c.waits != "[]" && c.waits != "[x]" && kept != 3 {
					t.Errorf("%d have their data", kept)
				}
				if m, err := c.do(j, q); n+m != 3 || err != nil {
					t.Errorf("%d are done, then %d, %v", n, m, err)
				}
				if waiting, rest := order(t, rdb, q, Waiting), order(t, rdb, q, c.state); waiting != c.waits || c.state != Waiting && rest != "[]" {
					t.Errorf("at last %s wait, want %s, and the others are %s", waiting, c.waits, rest)
				}
				for _, id := range []string{"ok0", "no1", "ok2"} {
					if job := rdb.HGetAll(ctx, taskPrefix(q)+id).Val(); len(job) > 0 && job["msg"] == "" {
						t.Errorf("%s has no message: %q", id, job)
					}
				}
			})
		}
	}
}

// A job without a lock ends when its key has come, and not before.
func TestEndWaitsForTheJobsKey(t *testing.T) {
	ctx, rdb := t.Context(), client(t, cluster.Get(t).Addrs())
	for name, verbs := range map[string][]string{"retry": {"retry"}, "batch": {"done", "done"}} {
		q := fresh("notcome")
		f, _ := twoRunning(t, rdb, q)
		for _, x := range f.ready {
			rdb.Del(ctx, rdb.HGet(ctx, taskPrefix(q)+x.id, "unique_key").Val())
			rdb.HDel(ctx, taskPrefix(q)+x.id, "unique_key")
		}
		end := func() endReply {
			batch := make([]ending, len(verbs))
			for i, v := range verbs {
				batch[i] = ending{verb: v, id: f.ready[i].id, owner: f.nonce(), msg: f.ready[i].msg, score: "5"}
			}
			return f.ender.call(ctx, batch)[0]
		}
		moved := append(countedToday(t, rdb, q), asynqKey(q, "active"), asynqKey(q, "lease"), asynqKey(q, "pending"))
		rdb.LPush(ctx, asynqKey(q, "pending"), "x")
		for _, set := range []string{"retry", "archived", "completed"} {
			rdb.ZAdd(ctx, asynqKey(q, set), redis.Z{Score: 1, Member: "x"})
			moved = append(moved, asynqKey(q, set))
		}
		finish := moving(t, rdb, q, moved...)
		if r := end(); r.err == nil || !passing(r.err) {
			t.Errorf("%s: meanwhile %+v, want what passes", name, r)
		}
		finish()
		if r := end(); r.err != nil || r.text != "OK" {
			t.Errorf("%s: then %+v", name, r)
		}
	}
}

// A delayed job of a group waits for the group's set.
func TestForwardWaitsForTheGroup(t *testing.T) {
	ctx, rdb := t.Context(), client(t, cluster.Get(t).Addrs())
	q := fresh("group")
	threeStored(t, rdb, q, Delayed)
	for _, id := range []string{"ok0", "no1", "ok2"} {
		rdb.HSet(ctx, taskPrefix(q)+id, "group", "g")
	}
	group := asynqKey(q, "g:") + "g"
	rdb.ZAdd(ctx, group, redis.Z{Score: 1, Member: "older"})
	rdb.LPush(ctx, asynqKey(q, "pending"), "x")
	finish := moving(t, rdb, q, asynqKey(q, "scheduled"), asynqKey(q, "pending"), taskPrefix(q)+"ok0")
	if n, err := forwarding(t, rdb, q, Delayed); n != 0 || err == nil || !passing(err) {
		t.Errorf("meanwhile %d were forwarded, %v", n, err)
	}
	finish()
	if got := rdb.ZRange(ctx, group, 0, -1).Val(); len(got) != 1 || got[0] != "older" {
		t.Errorf("the group has %v", got)
	}
	if n, err := forwarding(t, rdb, q, Delayed); n != 3 || err != nil {
		t.Errorf("then %d were forwarded, %v", n, err)
	}
}
