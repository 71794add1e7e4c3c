package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

// tries bounds how often a doubtful enqueue is repeated before it is reported as unconfirmed.
const tries = 4

const (
	// storeBatch and storeBytes are the most of one command.
	storeBatch = 500
	storeBytes = 4 << 20
)

// storeScript stores jobs, under one rule: what is there already stays as it is. A job that this very call has stored
// before, whose answer was lost, is told by its attempt, which its message has in it; that is its ID, if nobody else can have it.
// One that is done and was not retained meanwhile is stored again: a mark that outlives it would cost each job one more command.
// Whether a job's time has come is told by Redis's clock, as it is later: those of the callers differ.
//
// A lock names the job that holds it. asynq's tools leave it behind, without a job, or with a failed one that they have cut off, which
// nothing lists: then it refuses no outbox row, of which nobody would hear, and refuses a caller, who does, as asynq would. A failed job
// holds its lock, as asynq has it, and so does one that waits for its group, whose lock asynq writes into its message alone.
//
// A job that Redis refuses, as a key is something else or was moved, is not stored, not even in part, and takes no other one along.
//
// KEYS: pending, scheduled, closed, archived; ARGV: task key prefix, now in ns, for how many seconds a row that another job's lock has
// refused stays so, then by job: id, message, attempt, unique lock or "", its seconds, an outbox row's key for a refusal or "",
// due in s or ""
// Returns by job 1 stored, 2 was stored by this call, 0 the ID exists, -1 the lock is taken, -2 the queue takes none, or {why Redis
// refuses it}, and READONLY for all, so that go-redis looks for the master: nothing was written then.
var storeScript = redis.NewScript(`
local replies = {}
local function wrong(reply)
	return type(reply) == "table" and reply.err
end
local function holds(holder, lock)
	local job = redis.pcall("HMGET", ARGV[1] .. holder, "unique_key", "state", "msg")
	if job.err then
		return not string.find(job.err, "WRONGTYPE", 1, true) and job
	end
	if job[1] ~= lock and (job[1] or not string.find(job[3] or "", lock, 1, true)) then
		return false
	end
	return job[2] ~= "archived" or redis.pcall("ZSCORE", KEYS[4], holder)
end
local function refused(id, lock, seconds, mark)
	local keeps = mark ~= ""
	if keeps and redis.call("EXISTS", mark) == 1 then
		return true
	end
	local set = redis.pcall("SET", lock, id, "NX", "EX", seconds)
	if set then
		return set.err and set
	end
	local holder = redis.pcall("GET", lock)
	if wrong(holder) then
		return holder
	end
	local held = holder ~= id and (not keeps or holds(holder, lock))
	if held and keeps and not wrong(held) then
		redis.call("SET", mark, "1", "EX", ARGV[3])
	elseif not held then
		redis.call("SET", lock, id, "EX", seconds)
	end
	return held
end
local function later(due)
	if due == "" then
		return false
	end
	local time = redis.call("TIME")
	return tonumber(due) > tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local function store(id, msg, attempt, lock, seconds, mark, due)
	local key = ARGV[1] .. id
	local there, closed = redis.pcall("EXISTS", KEYS[3], key)
	if wrong(there) then
		return {there.err}
	elseif there > 0 then
		there, closed = redis.pcall("HGET", key, "msg"), redis.call("EXISTS", KEYS[3]) == 1
		if wrong(there) then
			return {there.err}
		elseif there then
			return string.find(there, attempt, 1, true) and 2 or 0
		elseif closed then
			return -2
		end
	end
	local held = lock ~= "" and refused(id, lock, seconds, mark)
	if held then
		return wrong(held) and {held.err} or -1
	end
	local listed
	local waits = later(due)
	if waits then
		listed = redis.pcall("ZADD", KEYS[2], due, id)
	else
		listed = redis.pcall("LPUSH", KEYS[1], id)
	end
	if wrong(listed) then
		if lock ~= "" then
			redis.call("DEL", lock)
		end
		return {listed.err}
	end
	if waits then
		redis.call("HSET", key, "msg", msg, "state", "scheduled")
	else
		redis.call("HSET", key, "msg", msg, "state", "pending", "pending_since", ARGV[2])
	end
	if lock ~= "" then
		redis.call("HSET", key, "unique_key", lock)
	end
	return 1
end
for i = 4, #ARGV, 7 do
	local reply = store(unpack(ARGV, i, i + 6))
	if type(reply) == "table" and string.find(reply[1], "^READONLY") then
		return {err = reply[1]}
	end
	replies[#replies + 1] = reply
end
return replies`)

// refusedKey says of an outbox row that it was refused because of another job's lock. A later row of the same ID is another one.
func refusedKey(row *outboxRow) string {
	return ownKey(row.Queue, "refused:") + row.ID + ":" + row.created
}

// store puts envelopes, where there are any, into Redis until it has answered for certain, and notes in infos what became
// of each. A lost answer is asked for again with the same IDs and attempts.
func (j *Jobs) store(ctx context.Context, sealed []*envelope, infos []Info, tries int) {
	encoded, ready := make([]stored, len(sealed)), make([]int, 0, len(sealed))
	attempt := ""
	for i, e := range sealed {
		if e == nil {
			continue
		}
		if !e.drawn {
			if attempt == "" {
				attempt = uuid.NewString()
			}
			e.header(headerAttempt, attempt)
		}
		if encoded[i], infos[i].Err = j.encoder.encode(e); infos[i].Err == nil {
			ready = append(ready, i)
		}
	}
	slices.SortStableFunc(ready, func(a, b int) int { return strings.Compare(sealed[a].Queue, sealed[b].Queue) })
	var wg sync.WaitGroup
	for len(ready) > 0 {
		queue := sealed[ready[0]].Queue
		n := slices.IndexFunc(ready, func(i int) bool { return sealed[i].Queue != queue })
		if n < 0 {
			j.storeIn(ctx, queue, sealed, encoded, ready, infos, tries)
			break
		}
		mine := ready[:n]
		wg.Go(func() { j.storeIn(ctx, queue, sealed, encoded, mine, infos, tries) })
		ready = ready[n:]
	}
	wg.Wait()
}

// storeIn stores those of one queue, in batches of what one command may hold.
func (j *Jobs) storeIn(ctx context.Context, queue string, sealed []*envelope, encoded []stored, all []int, infos []Info, tries int) {
	for len(all) > 0 {
		n, bytes := 0, 0
		for n < len(all) && n < storeBatch && (n == 0 || bytes+len(encoded[all[n]].msg) <= storeBytes) {
			bytes += len(encoded[all[n]].msg)
			n++
		}
		j.storeBatch(ctx, queue, sealed, encoded, all[:n], infos, tries)
		all = all[n:]
	}
}

func (j *Jobs) storeBatch(ctx context.Context, queue string, sealed []*envelope, encoded []stored, batch []int, infos []Info, tries int) {
	args, replicas := j.storeArgs(queue, sealed, encoded, batch)
	keys := []string{asynqKey(queue, "pending"), asynqKey(queue, "scheduled"), ownKey(queue, "closed"), asynqKey(queue, "archived")}
	pause := 50 * time.Millisecond
	for try := 1; ; try++ {
		replies, err := j.storeOnce(ctx, queue, keys, args, replicas)
		switch {
		case len(replies) == len(batch): // what is stored stays so, and may be done by now: it is not stored again
			if batch, err = settle(queue, encoded, batch, replies, err, infos); len(batch) == 0 {
				return
			}
			args, replicas = j.storeArgs(queue, sealed, encoded, batch)
		case err == nil:
			err = fmt.Errorf("queue: the store script answered %d of %d", len(replies), len(batch))
		case answered(err) && !passing(err):
			for _, i := range batch {
				infos[i].Err = refusedBy(err, encoded[i].id, queue)
			}
			return
		}
		if try >= tries || !sleep(ctx, pause) {
			for _, i := range batch {
				infos[i].Err = &UnconfirmedError{Queue: queue, ID: encoded[i].id, Err: err}
			}
			return
		}
		pause *= 2
	}
}

// storeArgs are the store script's arguments, and how many replicas are asked for.
func (j *Jobs) storeArgs(queue string, sealed []*envelope, encoded []stored, batch []int) (args []any, replicas int) {
	args = append(make([]any, 0, 3+7*len(batch)), taskPrefix(queue), time.Now().UnixNano(), "0")
	for _, i := range batch {
		s := &encoded[i]
		seconds, due := "", ""
		if s.lock != "" {
			seconds = strconv.FormatInt(int64(max(time.Second, s.lockFor)/time.Second), 10)
		}
		if !s.due.IsZero() {
			due = neverEarly(s.due)
		}
		if sealed[i].refusal != "" {
			args[2] = int64(j.opts.OutboxRetention / time.Second)
		}
		args = append(args, s.id, s.msg, s.attempt, s.lock, seconds, sealed[i].refusal, due)
		replicas = max(replicas, sealed[i].Confirm)
	}
	return args, replicas
}

// settle notes what became of each job of a batch, and returns those that Redis may store a little later, with why. An error beside
// the replies is about the replicas.
func settle(queue string, encoded []stored, batch []int, replies []any, err error, infos []Info) (left []int, passes error) {
	for n, i := range batch {
		switch why, refused := refusalOf(replies[n]); {
		case refused && passing(why):
			left, passes = append(left, i), why
		case refused:
			infos[i].Err = refusedBy(why, encoded[i].id, queue)
		default:
			infos[i].Err = settled(replies[n], encoded[i].id, queue)
			if err != nil && !errors.Is(infos[i].Err, ErrClosed) {
				infos[i].Err = &UnconfirmedError{Queue: queue, ID: encoded[i].id, Err: err}
			}
		}
	}
	return left, passes
}

func refusedBy(err error, id, queue string) error {
	return fmt.Errorf("queue: Redis refuses job %s for queue %q: %w", id, queue, err)
}

// settled says what a reply of the store script means.
func settled(reply any, id, queue string) error {
	switch reply {
	case int64(1), int64(2):
		return nil
	case int64(-2):
		return fmt.Errorf("%w: %q", ErrClosed, queue)
	case int64(-1):
		return fmt.Errorf("%w: one of the kind and payload of %s in queue %q", ErrExists, id, queue)
	default:
		return fmt.Errorf("%w: %s in queue %q", ErrExists, id, queue)
	}
}

// storeOnce calls the script, and where replicas are asked for, waits until so many have what it wrote. Replies beside an error
// are certain: it is about the replicas. WAIT goes alone: in a pipeline only the client's ReadTimeout would bound it, which may be
// shorter, and the client would send all again.
func (j *Jobs) storeOnce(ctx context.Context, queue string, keys []string, args []any, replicas int) ([]any, error) {
	if err := j.announce(ctx, queue); err != nil {
		return nil, err
	}
	if replicas == 0 {
		return storeScript.Run(ctx, j.rdb, keys, args...).Slice()
	}
	node, _, err := j.masterOf(ctx, queue)
	if err != nil {
		return nil, err
	}
	if node == nil {
		return nil, fmt.Errorf("queue: Confirm needs a *redis.Client or a *redis.ClusterClient, not a %T", j.rdb)
	}
	conn := node.Conn()
	defer conn.Close()
	replies, err := storeScript.Run(ctx, conn, keys, args...).Slice()
	if err != nil {
		return nil, err
	}
	// A later write of this connection stands for all before it, also when the script found its jobs stored already.
	if err := conn.Set(ctx, ownKey(queue, "relayed"), 1, time.Minute).Err(); err != nil {
		return replies, err
	}
	n, err := conn.Wait(ctx, replicas, replicaWait).Result()
	if err != nil {
		return replies, err
	}
	if int(n) < replicas {
		return replies, fmt.Errorf("queue: %d replicas have confirmed, %d were asked for", n, replicas)
	}
	return replies, nil
}

// reannounce is how often a process that stores jobs makes their queues known again, for a Redis that has lost its data.
const reannounce = 2 * time.Second

// announce makes a queue known to asynq's tools, unless that was done lately. Workers announce theirs, too.
func (j *Jobs) announce(ctx context.Context, queue string) error {
	if last, ok := j.announced.Load(queue); ok && time.Since(last.(time.Time)) < reannounce {
		return nil
	}
	if err := j.rdb.SAdd(ctx, allQueues, queue).Err(); err != nil {
		return err
	}
	j.announced.Store(queue, time.Now())
	return nil
}

// answered reports whether err is Redis's own answer, so that the command did nothing, rather than a lost one.
func answered(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

// passing reports whether Redis's answer means that the same command may succeed a little later.
func passing(err error) bool {
	for _, prefix := range []string{
		"LOADING", "CLUSTERDOWN", "READONLY", "MASTERDOWN", "TRYAGAIN", "BUSY", "MOVED", "ASK", "NOREPLICAS", "MISCONF",
		"Script attempted to access a non local key", // which has moved while the script's others have not
		"Script attempted to execute a ",             // by a cluster that is down, of which only reads are allowed, or nothing
	} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

func isNil(err error) bool { return errors.Is(err, redis.Nil) }
