package queue

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// relayEnv makes the test binary a process that relays an outbox, until it kills itself at a step: the value is its relayConfig.
const relayEnv = "QUEUE_TEST_RELAY"

type relayConfig struct {
	Addrs  []string
	URL    string
	Queues []Queue
	Step   string
}

// relaySteps are where a relay dies, by SIGKILL, with rows in hand.
var relaySteps = []string{
	"locked",    // the rows are locked, nothing else is done
	"storing",   // some jobs are stored, and the answer is not read
	"stored",    // all are stored, before the rows are deleted
	"deleted",   // before the commit
	"committed", // right after it
}

func runRelay() {
	var cfg relayConfig
	if err := json.Unmarshal([]byte(os.Getenv(relayEnv)), &cfg); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	db, err := pgxpool.New(ctx, cfg.URL)
	if err != nil {
		panic(err)
	}
	rdb := redisclient.New(redisclient.Options(cfg.Addrs...))
	rdb.AddHook(mortalStore(cfg.Step))
	jobs, err := New(rdb, cfg.Queues, &Options{Outbox: mortal{db, cfg.Step}, OutboxInterval: 5 * time.Millisecond})
	if err != nil {
		panic(err)
	}
	if err := jobs.Run(ctx); err != nil {
		panic(err)
	}
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// mortalStore dies after the first script that has stored jobs.
type mortalStore string

func (m mortalStore) DialHook(next redis.DialHook) redis.DialHook { return next }

func (m mortalStore) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if args := cmd.Args(); m == "storing" && err == nil && cmd.Name() == "evalsha" && len(args) > 5 && strings.HasSuffix(args[4].(string), ":scheduled") {
			die()
		}
		return err
	}
}

func (m mortalStore) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

type mortal struct {
	*pgxpool.Pool
	step string
}

func (m mortal) Begin(ctx context.Context) (pgx.Tx, error) {
	tx, err := m.Pool.Begin(ctx)
	return &mortalTx{Tx: tx, step: m.step}, err
}

type mortalTx struct {
	pgx.Tx
	step   string
	locked bool // it has rows
}

func (tx *mortalTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := tx.Tx.Query(ctx, sql, args...)
	if err != nil || !strings.Contains(sql, "FOR UPDATE SKIP LOCKED") {
		return rows, err
	}
	return &mortalRows{rows, tx}, nil
}

type mortalRows struct {
	pgx.Rows
	tx *mortalTx
}

func (r *mortalRows) Next() bool {
	next := r.Rows.Next()
	r.tx.locked = r.tx.locked || next
	if !next && r.tx.locked && r.tx.step == "locked" {
		die()
	}
	return next
}

func (tx *mortalTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	deletes := strings.Contains(sql, "DELETE") && tx.locked
	if deletes && tx.step == "stored" {
		die()
	}
	tag, err := tx.Tx.Exec(ctx, sql, args...)
	if deletes && tx.step == "deleted" {
		die()
	}
	return tag, err
}

func (tx *mortalTx) Commit(ctx context.Context) error {
	err := tx.Tx.Commit(ctx)
	if tx.locked && tx.step == "committed" {
		die()
	}
	return err
}

// TestOutboxOutlivesDeathsAtEachStep kills relay processes at each step, two at a time, while transactions commit in another order than
// that of their rows' IDs, and half of them not at all: as many jobs run as transactions have committed.
func TestOutboxOutlivesDeathsAtEachStep(t *testing.T) {
	t.Parallel()
	db := pool(t)
	queues := []Queue{{Name: fresh("steps")}, {Name: fresh("steps")}}
	addrs := cluster.Get(t).Addrs()
	rdb := client(t, addrs)
	j := newJobs(t, rdb, &Options{Outbox: db}, queues...)
	if err := j.EnsureOutbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := min(many(t, 600), 10_000)
	var done ledger
	w := newWorker(t, j, nil)
	Handle(w, func(_ context.Context, job note) error {
		if job.N%2 == 0 {
			t.Errorf("job %d of a transaction that was rolled back ran", job.N)
		}
		done.add(job.N / 2)
		return nil
	})
	start(t, w)

	// The relays: each lives until it dies, and another takes its place.
	config := relayConfig{Addrs: addrs, URL: db.Config().ConnString(), Queues: queues}
	relaying, stop := context.WithCancel(context.Background())
	var relays sync.WaitGroup
	defer relays.Wait()
	defer stop()
	var mu sync.Mutex
	deaths := map[string]int{}
	for r := range 2 {
		relays.Go(func() {
			for i := r * 2; relaying.Err() == nil; i++ {
				step := relaySteps[i%len(relaySteps)]
				if killed, err := relayUntilDeath(relaying, config, step); err != nil {
					t.Error(err)
					return
				} else if killed {
					mu.Lock()
					deaths[step]++
					mu.Unlock()
				}
			}
		})
	}

	// Four at a time, which is what the pool has, of which the first that has begun commits last.
	for at := 0; at < n; at += 4 {
		var txs []pgx.Tx
		for i := at; i < min(n, at+4); i++ {
			tx, err := db.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := j.EnqueueTx(t.Context(), tx, note{N: i}, On(queues[i/2%2].Name)); err != nil {
				t.Fatal(err)
			}
			txs = append(txs, tx)
		}
		for i, tx := range slices.Backward(txs) {
			var err error
			if (at+i)%2 == 0 {
				err = tx.Rollback(t.Context())
			} else {
				err = tx.Commit(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	more := n // until each step has had its death
	eventually(t, 3*time.Minute, "relays have died at each step", func() bool {
		mu.Lock()
		defer mu.Unlock()
		if len(deaths) == len(relaySteps) {
			return true
		}
		if rows(t, db) == 0 {
			if err := j.EnqueueTx(t.Context(), db, note{N: more + 1}, On(queues[0].Name)); err != nil {
				t.Fatal(err)
			}
			more += 2
		}
		return false
	})
	eventually(t, 3*time.Minute, "the outbox is empty and all is done", func() bool {
		if rows(t, db) > 0 {
			return false
		}
		for _, q := range queues {
			if s := status(t, j, q.Name); s.Waiting+s.Active > 0 {
				return false
			}
		}
		return true
	})
	stop()
	relays.Wait()
	done.check(t, more/2, true)
	t.Logf("%d of %d transactions committed; relays died at %v", more/2, more, deaths)
}

// relayUntilDeath runs a relay process until it has killed itself, or ctx ends.
func relayUntilDeath(ctx context.Context, config relayConfig, step string) (killed bool, err error) {
	config.Step = step
	value, err := json.Marshal(config)
	if err != nil {
		return false, err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), relayEnv+"="+string(value)), os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	defer context.AfterFunc(ctx, func() { stdin.Close() })()
	err = cmd.Wait()
	state, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if state.Signaled() && state.Signal() == syscall.SIGKILL {
		return true, nil
	}
	return false, err
}
