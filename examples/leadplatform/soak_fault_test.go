package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// fault is something that goes wrong, or that an operator does, for a while.
type fault struct {
	name        string
	class       string // two of a class never overlap
	least, most time.Duration
	// begin injects it and returns whom it has hit and what heals it; nil when it needs no healing.
	begin func(dice *rand.Rand) (note string, heal func() error, err error)
}

// excludes keeps a server's faults apart, and read-only mode, whose check counts rows there, from faults of the primary.
func (f fault) excludes(other fault) bool {
	pair := []string{f.class, other.class}
	return f.class == other.class || slices.Contains(pair, "mode") && slices.Contains(pair, "primary")
}

const second = time.Second

func (s *soak) catalogue() []fault {
	all := slices.Concat(s.databaseFaults(), s.redisFaults(), s.processFaults(), s.operations())
	words := os.Getenv("SCALEAWARE_FAULTS")
	return slices.DeleteFunc(all, func(f fault) bool {
		for word := range strings.SplitSeq(words, ",") {
			if strings.Contains(f.name, word) {
				return false
			}
		}
		return true
	})
}

// unavailable takes a server away and brings it back.
func unavailable(note string, take func(), bring func() error) (string, func() error, error) {
	take()
	return note, bring, nil
}

func (s *soak) databaseFaults() []fault {
	ctx := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), time.Minute)
	}
	replica := func(name string, least, most time.Duration, take, bring func(ctx context.Context, n int) error) fault {
		return fault{name, "replica", least, most, func(dice *rand.Rand) (string, func() error, error) {
			n := dice.IntN(2)
			begin, cancel := ctx()
			defer cancel()
			return s.pg.Replica(n).Name(), func() error {
				end, cancel := ctx()
				defer cancel()
				return bring(end, n)
			}, take(begin, n)
		}}
	}
	simple := func(do func(n int)) func(context.Context, int) error {
		return func(_ context.Context, n int) error { do(n); return nil }
	}
	heal := simple(func(n int) { s.replicas[n].Heal() })
	primary := func(name string, least, most time.Duration, take func(), bring func() error) fault {
		return fault{name, "primary", least, most, func(*rand.Rand) (string, func() error, error) { return unavailable("primary", take, bring) }}
	}
	healPrimary := func() error { s.primary.Heal(); return nil }
	return []fault{
		replica("replica replay paused", 2*second, 8*second,
			func(ctx context.Context, n int) error { return s.pg.Replica(n).PauseReplay(ctx) },
			func(ctx context.Context, n int) error { return s.pg.Replica(n).ResumeReplay(ctx) }),
		replica("replica stream cut", 2*second, 8*second,
			func(ctx context.Context, n int) error { return s.pg.Replica(n).CutStream(ctx) },
			func(ctx context.Context, n int) error { return s.pg.Replica(n).RestoreStream(ctx) }),
		replica("replica frozen", 3*second, 8*second,
			simple(func(n int) { s.pg.Replica(n).Freeze() }), simple(func(n int) { s.pg.Replica(n).Thaw() })),
		replica("replica killed", 2*second, 6*second,
			simple(func(n int) { s.pg.Replica(n).Kill() }), func(ctx context.Context, n int) error { return s.pg.Replica(n).Start(ctx) }),
		replica("replica half-open", 3*second, 6*second, simple(func(n int) { s.replicas[n].HalfOpen() }), heal),
		replica("replica blackholed", 3*second, 6*second, simple(func(n int) { s.replicas[n].Blackhole(faultconn.Both) }), heal),
		replica("replica answers slowly", 3*second, 6*second,
			simple(func(n int) { s.replicas[n].Delay(faultconn.ToClient, 300*time.Millisecond) }), heal),
		primary("primary frozen", 2*second, 10*second, s.pg.Primary().Freeze, func() error { s.pg.Primary().Thaw(); return nil }),
		primary("primary killed", 2*second, 6*second, s.pg.Primary().Kill, func() error {
			ctx, cancel := ctx()
			defer cancel()
			return s.pg.Primary().Start(ctx)
		}),
		primary("primary half-open", 3*second, 6*second, s.primary.HalfOpen, healPrimary),
		primary("primary blackholed", 3*second, 6*second, func() { s.primary.Blackhole(faultconn.Both) }, healPrimary),
		primary("primary's connections reset", 0, second, s.primary.Reset, healPrimary),
		primary("primary answers slowly", 4*second, 8*second, func() { s.primary.Delay(faultconn.ToClient, 300*time.Millisecond) }, healPrimary),
	}
}

func (s *soak) redisFaults() []fault {
	master := func(name string, least, most time.Duration, take func(context.Context, *rediscluster.Node) error, bring func(context.Context, *rediscluster.Node) error) fault {
		return fault{name, "redis", least, most, func(dice *rand.Rand) (string, func() error, error) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			node, err := s.redis.MasterOf(ctx, dice.IntN(16384))
			if err != nil {
				return "", nil, err
			}
			return node.Addr(), func() error {
				ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
				defer cancel()
				if err := bring(ctx, node); err != nil {
					return err
				}
				return s.redis.WaitHealthy(ctx)
			}, take(ctx, node)
		}}
	}
	return []fault{
		master("redis master killed", 3*second, 7*second,
			func(_ context.Context, n *rediscluster.Node) error { n.Kill(); return nil },
			func(ctx context.Context, n *rediscluster.Node) error {
				// Restarted before its replica has taken over, it would be an empty master.
				if err := s.takenOver(ctx); err != nil {
					return err
				}
				return n.Start(ctx)
			}),
		master("redis master frozen", 3*second, 6*second,
			func(_ context.Context, n *rediscluster.Node) error { n.Freeze(); return nil },
			func(_ context.Context, n *rediscluster.Node) error { n.Thaw(); return nil }),
		master("redis master fails over as planned", 0, 2*second,
			func(ctx context.Context, n *rediscluster.Node) error {
				replica, err := s.redis.ReplicaOf(ctx, n)
				if err != nil {
					return err
				}
				return replica.Failover(ctx)
			},
			func(context.Context, *rediscluster.Node) error { return nil }),
	}
}

// takenOver waits until three nodes that answer serve all slots.
func (s *soak) takenOver(ctx context.Context) error {
	for {
		if masters, err := s.redis.Masters(ctx); err == nil && len(masters) == 3 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *soak) processFaults() []fault {
	process := func(name, prefix string, least, most time.Duration, take, bring syscall.Signal) fault {
		return fault{name, prefix, least, most, func(dice *rand.Rand) (string, func() error, error) {
			pid, who, err := s.process(prefix, dice.IntN(6))
			if err != nil {
				return "", nil, err
			}
			return who, func() error {
				if bring == 0 {
					return s.restarted(who, pid)
				}
				return syscall.Kill(pid, bring)
			}, syscall.Kill(pid, take)
		}}
	}
	return []fault{
		process("instance killed", "api-", 0, 2*second, syscall.SIGKILL, 0),
		process("instance frozen", "api-", 2*second, 9*second, syscall.SIGSTOP, syscall.SIGCONT),
		process("worker killed", "worker-", 0, 2*second, syscall.SIGKILL, 0),
		process("worker frozen", "worker-", 3*second, 18*second, syscall.SIGSTOP, syscall.SIGCONT),
	}
}

// process waits for all processes of a kind to be up and returns one of them.
func (s *soak) process(prefix string, n int) (pid int, name string, err error) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-time.After(100 * time.Millisecond) {
		state, err := s.p.read()
		if err != nil || !state.Up() {
			continue
		}
		all := state.Processes[:0]
		for _, p := range state.Processes {
			if strings.HasPrefix(p.Name, prefix) {
				all = append(all, p)
			}
		}
		return all[n%len(all)].PID, all[n%len(all)].Name, nil
	}
	return 0, "", fmt.Errorf("not all processes are up within 30s")
}

// restarted waits until a killed process has a successor.
func (s *soak) restarted(name string, old int) error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-time.After(100 * time.Millisecond) {
		state, err := s.p.read()
		for _, p := range state.Processes {
			if err == nil && p.Name == name && p.PID != 0 && p.PID != old {
				return nil
			}
		}
	}
	return fmt.Errorf("%s was not started anew within 30s", name)
}

// operations are what an operator does meanwhile. Undoing one is repeated until it succeeds: it must, once all is healed.
func (s *soak) operations() []fault {
	operation := func(name, class string, most time.Duration, do, undo func(dice *rand.Rand) [2]string) fault {
		return fault{name, class, 0, most, func(dice *rand.Rand) (string, func() error, error) {
			seed := dice.Uint64()
			request := do(rand.New(rand.NewPCG(seed, 0)))
			status, reply := s.operate(request[0], request[1])
			note := fmt.Sprintf("%s %s: %d %.120s", request[0], request[1], status, reply)
			if undo == nil {
				return note, nil, nil
			}
			return note, func() error { return s.insist(undo(rand.New(rand.NewPCG(seed, 0)))) }, nil
		}}
	}
	fixed := func(method, path string) func(*rand.Rand) [2]string {
		return func(*rand.Rand) [2]string { return [2]string{method, path} }
	}
	queue := func(verb string) func(*rand.Rand) [2]string {
		return func(dice *rand.Rand) [2]string {
			names := []string{"critical", "lead-processing", "normal", "low-priority"}
			return [2]string{"POST", "/api/v1/performance/jobs/" + names[dice.IntN(len(names))] + "/" + verb}
		}
	}
	return []fault{
		{"read-only mode", "mode", 2 * second, 6 * second, s.readOnlyMode},
		operation("incident", "mode", 5*second, fixed("POST", "/api/v1/admin/incident"), fixed("DELETE", "/api/v1/admin/incident")),
		operation("whole cache invalidated", "cache", second, fixed("POST", "/api/v1/performance/cache/invalidate"), nil),
		operation("TTLs extended", "cache", 4*second, fixed("POST", "/api/v1/performance/cache/extend-ttls"), fixed("DELETE", "/api/v1/performance/cache/extend-ttls")),
		operation("queue paused", "queue", 6*second, queue("pause"), queue("resume")),
		operation("queue parked", "queue", 4*second, queue("drain"), queue("resume")),
	}
}

// readOnlyMode: while every member is reported to obey and to have nothing in flight, nothing is committed, by a request
// or by a job.
func (s *soak) readOnlyMode(*rand.Rand) (string, func() error, error) {
	const path = "/api/v1/admin/read-only-mode"
	type report struct {
		Epoch                   uint64
		Enabled                 bool
		Phase                   string
		Instances, Acknowledged int
	}
	ask := func(method string) (r report, status int) {
		status, blob := s.operate(method, path)
		if status == 200 {
			_ = json.Unmarshal([]byte(blob), &r)
		}
		return r, status
	}
	on, status := ask("POST")
	note := fmt.Sprintf("%d %+v", status, on)
	obeyed := on.Enabled && on.Phase == "held" && on.Instances == soakMembers && on.Acknowledged == soakMembers
	const sum = `SELECT count(*) || ' leads with ' || coalesce(sum(revision), 0) || ' revisions and ' || count(score) || ' scores' FROM "Lead"`
	before, err := s.ask(sum)
	return note, func() error {
		after, err := s.ask(sum)
		if err != nil {
			return err
		}
		if now, _ := ask("GET"); obeyed && now.Enabled && now.Epoch == on.Epoch {
			s.count("read-only windows")
			if after != before {
				s.violate(nil, "read-only mode was held (%+v), and %s became %s", on, before, after)
			}
		}
		return s.insist([2]string{"DELETE", path})
	}, err
}
