package cache

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// stepEnv makes the test binary a process that does one thing to a cache and stops on the way: the value is its stepConfig.
const stepEnv = "CACHE_TEST_STEP"

type stepConfig struct {
	Redis  []string
	Prefix string
	Do     string // see runStep
	At     string // where it stops: before or after a command of stepCommands, or "loading"
}

// stepCommands tell by a script, or by a command's name, how far a call has come.
var stepCommands = map[string]*redis.Script{
	"begin": beginScript.one, "store": storeScript.one, "release": claimScript, "delete": deleteScript,
	"begin of many": beginScript.many, "store of many": storeScript.many,
	"tick": tickScript, "rule": ruleScript, "raise": raiseTagScript, "unlink": nil, "hdel": nil,
}

// stopAt stops the process for good before or after a command.
type stopAt struct {
	redis.Hook
	at string
}

func (s stopAt) pass(when string, cmds ...redis.Cmder) {
	for _, cmd := range cmds {
		name := cmd.Name()
		if args := cmd.Args(); len(args) > 1 {
			for step, script := range stepCommands {
				if script != nil && (args[1] == script.Hash() || args[1] == scriptText(script)) {
					name = step
				}
			}
		}
		if refused := redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT"); !refused {
			s.reach(when + " " + name)
		}
	}
}

// scriptText is what EVAL is given of a script.
func scriptText(script *redis.Script) any {
	var text sourceOf
	script.Eval(context.Background(), &text, nil)
	return text.src
}

type sourceOf struct {
	redis.Scripter
	src string
}

func (s *sourceOf) Eval(_ context.Context, script string, _ []string, _ ...any) *redis.Cmd {
	s.src = script
	return redis.NewCmd(context.Background())
}

// reach stops where the process is to stop.
func (s stopAt) reach(where string) {
	if s.at != where {
		return
	}
	fmt.Println("stopped")
	select {}
}

func (s stopAt) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s stopAt) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		s.pass("before", cmd)
		err := next(ctx, cmd)
		s.pass("after", cmd)
		return err
	}
}

func (s stopAt) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		s.pass("before", cmds...)
		err := next(ctx, cmds)
		s.pass("after", cmds...)
		return err
	}
}

var stepTags = Tags(func(string, lead) []string { return []string{"all"} })

func stepView(s *Store) *View[lead] {
	return Of[lead](s, "lead", TTL(time.Minute), InProcess(Local{}), stepTags)
}

// runStep does what its test says, and ends when its input does.
func runStep() error {
	var c stepConfig
	if err := json.Unmarshal([]byte(os.Getenv(stepEnv)), &c); err != nil {
		return err
	}
	rdb := redisclient.New(redisclient.Options(c.Redis...))
	stop := stopAt{at: c.At}
	rdb.AddHook(stop)
	s, err := New(rdb, &Options{Prefix: c.Prefix, RedisTimeout: patience, LoadTimeout: patience})
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	ctx, leads := context.Background(), stepView(s)
	switch c.Do {
	case "load", "load in vain":
		_, err = leads.Load(ctx, "1", func(context.Context, string) (lead, error) {
			stop.reach("loading")
			if c.Do == "load in vain" {
				return lead{}, errors.New("the origin is away")
			}
			return lead{Score: 1}, nil
		})
	case "load many":
		_, err = leads.LoadMany(ctx, []string{"1", "2", "3"}, func(ctx context.Context, ids []string) (map[string]lead, error) {
			stop.reach("loading")
			return leadsOf(ctx, ids)
		})
	case "warm":
		err = leads.DeclareWarm(stepWarm(func(n int) {
			if n > stepWarmed {
				stop.reach("loading")
			}
		}))
		if err == nil {
			_, err = s.Warm(ctx)
		}
	case "delete":
		err = leads.Delete(ctx, "1")
	case "tag":
		err = s.InvalidateTags(ctx, "all")
	case "pattern":
		_, err = s.Invalidate(ctx, "lead:*")
	}
	return fmt.Errorf("%s did not come by %q: %w", c.Do, c.At, err)
}

const (
	stepWarmKeys = 2000
	stepWarmed   = 1000
)

// stepWarm is a set whose loader says how many it was asked for before it answers.
func stepWarm(asked func(n int)) WarmSet[lead] {
	var sum atomic.Int64
	return WarmSet[lead]{Name: "all", Keys: func(context.Context) ([]string, error) { return spread(stepWarmKeys), nil },
		Concurrency: 1, Load: func(_ context.Context, id string) (lead, error) {
			asked(int(sum.Add(1)))
			return lead{ID: id}, nil
		}}
}

// What was warmed before the process was killed is not loaded again, but for a tenth.
func TestWarmingGoesOnAfterAKill(t *testing.T) {
	ctx := testContext(t)
	servers := six.Get(t)
	s := newStore(t, client(t, servers), nil)
	killAt(t, stepConfig{Redis: servers.Addrs(), Prefix: s.opts.Prefix, Do: "warm", At: "loading"})
	loaded := 0
	if err := stepView(s).DeclareWarm(stepWarm(func(n int) { loaded = n })); err != nil {
		t.Fatal(err)
	}
	report, err := s.Warm(ctx)
	if err != nil || !report.Complete {
		t.Fatalf("%+v, %v", report, err)
	}
	if most := stepWarmKeys - stepWarmed*9/10; loaded > most {
		t.Errorf("%d keys were loaded after %d of %d had been, want at most %d", loaded, stepWarmed, stepWarmKeys, most)
	}
	t.Log(loaded, "loaded")
}

// killAt lets a process come so far, and kills it there.
func killAt(t *testing.T, c stepConfig) {
	t.Helper()
	value, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), stepEnv+"="+string(value))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(stdout).ReadString('\n')
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if said != "stopped\n" {
		t.Fatalf("the process did not stop %s: %q, %v", c.At, said, err)
	}
}

// killedSteps are where a process may die, and what others may be given after that.
var killedSteps = []struct {
	do, at string
	has    bool // a value is there before
	gone   bool // and must not be given after it
	given  bool // the value of the dead is given
}{
	{do: "load", at: "before begin"},
	{do: "load", at: "after begin"},
	{do: "load", at: "loading"},
	{do: "load", at: "before store"},
	{do: "load", at: "after store", given: true},
	{do: "load in vain", at: "before release"},
	{do: "load in vain", at: "after release"},
	{do: "load many", at: "before begin of many"},
	{do: "load many", at: "after begin of many"},
	{do: "load many", at: "loading"},
	{do: "load many", at: "before store of many"},
	{do: "load many", at: "after store of many", given: true},
	{do: "delete", at: "before delete", has: true},
	{do: "delete", at: "after delete", has: true, gone: true},
	{do: "tag", at: "before tick", has: true},
	{do: "tag", at: "after tick", has: true},
	{do: "tag", at: "before raise", has: true},
	{do: "tag", at: "after raise", has: true, gone: true},
	{do: "pattern", at: "after tick", has: true},
	{do: "pattern", at: "before rule", has: true},
	{do: "pattern", at: "after rule", has: true, gone: true},
	{do: "pattern", at: "before unlink", has: true, gone: true},
	{do: "pattern", at: "after unlink", has: true, gone: true},
	{do: "pattern", at: "before hdel", has: true, gone: true},
	{do: "pattern", at: "after hdel", has: true, gone: true},
}

// A process is killed at each step of a fill and of an invalidation. Others load within the time of a claim; they are given
// nothing from before what Redis has taken in of the invalidation, and can invalidate what it has not; its sweep is finished.
func TestKilledAtEachStep(t *testing.T) {
	for _, c := range killedSteps {
		t.Run(c.do+", "+c.at, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			servers := six.Get(t)
			here := running(t, newStore(t, client(t, servers), nil))
			idle := sibling(t, here) // which does not run
			a, b := stepView(here), stepView(idle)
			if c.has {
				settled(t, ctx, a, "1", loads(lead{Score: 1}))
			}
			killAt(t, stepConfig{Redis: servers.Addrs(), Prefix: here.opts.Prefix, Do: c.do, At: c.at})
			if c.gone {
				eventually(t, "the news", func() bool { _, err := a.Get(ctx, "1"); return errors.Is(err, ErrMiss) })
			}
			want := int64(2)
			if c.given || c.has && !c.gone {
				want = 1
			}
			began := time.Now()
			for _, v := range []*View[lead]{a, b} {
				l, err := v.Load(ctx, "1", loads(lead{Score: 2}))
				wantScore(t, l, err, want)
			}
			if took := time.Since(began); took > claimTTL+2*slack {
				t.Errorf("it took %v", took)
			}
			settled(t, ctx, a, "1", loads(lead{Score: 3}))
			for name, invalidate := range map[string]func() error{
				"delete":  func() error { return b.Delete(ctx, "1") },
				"tag":     func() error { return idle.InvalidateTags(ctx, "all") },
				"pattern": func() error { _, err := idle.Invalidate(ctx, "lead:*"); return err },
			} {
				if err := invalidate(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				eventually(t, "the news of a "+name, func() bool { return inProcess(a, "1") == nil })
				l, err := b.Load(ctx, "1", loads(lead{Score: 4}))
				wantScore(t, l, err, 4)
				settled(t, ctx, a, "1", loads(lead{Score: 5}))
				l, err = a.Get(ctx, "1")
				wantScore(t, l, err, 4)
				if err := a.Set(ctx, "1", lead{Score: 3}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
