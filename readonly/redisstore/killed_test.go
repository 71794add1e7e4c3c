package redisstore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/redisstore"
	"github.com/scaleaware/scaleaware/redisclient"
)

const killedEnv = "READONLY_TEST_KILLED" // address, prefix, the step in which to wait, and to begin or to end

// marks are steps that leave a key each. In the one named wait the process hangs, half done, until it is killed.
func marks(rdb redis.UniversalClient, prefix, wait string) (steps []readonly.Step) {
	half := func(ctx context.Context, what string) {
		if what == wait {
			rdb.Set(ctx, prefix+"half", what, 0)
			<-ctx.Done()
		}
	}
	for _, name := range []string{"one", "two", "three"} {
		steps = append(steps, readonly.Step{
			Name: name,
			Do: func(ctx context.Context) (any, error) {
				half(ctx, "do "+name)
				return nil, rdb.Set(ctx, prefix+name, "done", 0).Err()
			},
			Undo: func(ctx context.Context, _ json.RawMessage) (any, error) {
				half(ctx, "undo "+name)
				return nil, rdb.Del(ctx, prefix+name).Err()
			},
		})
	}
	return steps
}

func member(ctx context.Context, rdb redis.UniversalClient, prefix, name, wait string) (*readonly.Switch, *readonly.Incident, error) {
	store, err := redisstore.New(rdb, &redisstore.Options{Prefix: prefix})
	if err != nil {
		return nil, nil, err
	}
	mode, err := readonly.New(store, &readonly.Options{Instance: name, AckWait: 500 * time.Millisecond})
	if err != nil {
		return nil, nil, err
	}
	go mode.Run(ctx)
	incident, err := readonly.NewIncident(mode, marks(rdb, prefix, wait)...)
	return mode, incident, err
}

// beKilled is the main of the process that dies.
func beKilled(spec string) {
	f := strings.Split(spec, "|")
	rdb := redisclient.New(redisclient.Options(strings.Split(f[0], ",")...))
	_, incident, err := member(context.Background(), rdb, f[1], "killed", f[2])
	if err == nil && f[3] == "begin" {
		_, err = incident.Begin(context.Background(), readonly.Change{Reason: "load"})
	} else if err == nil {
		_, err = incident.End(context.Background(), "me")
	}
	fmt.Println("not killed in time:", err)
}

// A process is killed with SIGKILL in the middle of a step, of the beginning or of the end. Another one goes on.
func TestKilledProcessLeavesNoIncidentHalf(t *testing.T) {
	rdb := connect(t)
	for _, c := range []struct{ wait, verb string }{{"do two", "begin"}, {"undo two", "end"}} {
		t.Run(c.verb, func(t *testing.T) {
			t.Parallel()
			prefix := "killed." + c.verb + ":"
			mode, incident, err := member(t.Context(), rdb, prefix, "survivor", "")
			if err != nil {
				t.Fatal(err)
			}
			until(t, func() bool { return mode.AllowWrite(t.Context()) == nil })
			if c.verb == "end" {
				if report, err := incident.Begin(t.Context(), readonly.Change{Reason: "load"}); err != nil || !report.Complete {
					t.Fatalf("Begin = %+v, %v", report, err)
				}
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), killedEnv+"="+strings.Join([]string{strings.Join(shared.Get(t).Addrs(), ","), prefix, c.wait, c.verb}, "|"))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			until(t, func() bool { return rdb.Get(t.Context(), prefix+"half").Val() == c.wait })
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			go incident.Run(t.Context())
			// The dead one's claim lasts thirty seconds: no step is done twice at once.
			deadline := time.Now().Add(60 * time.Second)
			for {
				state, _ := mode.State()
				left := rdb.Exists(t.Context(), prefix+"one").Val() + rdb.Exists(t.Context(), prefix+"two").Val() + rdb.Exists(t.Context(), prefix+"three").Val()
				if c.verb == "begin" && left == 3 && state.Relief.Phase == "begun" || c.verb == "end" && left == 0 && !state.Incident {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d steps, %+v", left, state)
				}
				time.Sleep(100 * time.Millisecond)
			}
			if (mode.AllowWrite(t.Context()) == nil) != (c.verb == "end") {
				t.Error("the mode is not that of the incident")
			}
			if c.verb == "begin" {
				if report, err := incident.End(t.Context(), "me"); err != nil || !report.Complete || rdb.Exists(t.Context(), prefix+"two").Val() != 0 {
					t.Errorf("End = %+v, %v", report, err)
				}
			}
		})
	}
}
