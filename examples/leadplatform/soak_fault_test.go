package main_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// fault is something that goes wrong, or that an operator does, for a while.
type fault struct {
	name        string
	class       string // two of a class never overlap
	least, most time.Duration
	// begin injects it and returns whom it has hit and what heals it; nil when it needs no healing.
	begin func(dice *rand.Rand) (note string, heal func() error, err error)
	// alarm is one of the alerts that it must raise when it lasts for long; empty if it need not.
	alarm []string
}

// apart are classes whose faults exclude each other: read-only mode's check and the crowd's count on the primary, and roles
// change among servers that are well.
var apart = map[string][]string{
	"mode": {"primary"}, "crowd": {"primary", "replica", "mode"}, "roles": {"primary", "replica", "mode", "crowd"},
}

func (f fault) excludes(other fault) bool {
	return f.class == other.class || slices.Contains(apart[f.class], other.class) || slices.Contains(apart[other.class], f.class)
}

const second = time.Second

func (s *soak) catalogue() []fault {
	all := slices.Concat(s.databaseFaults(), s.roleFaults(), s.redisFaults(), s.processFaults(), s.operations(), s.crowds())
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

func (s *soak) processFaults() []fault {
	process := func(name, prefix string, least, most time.Duration, take, bring syscall.Signal) fault {
		return fault{name: name, class: prefix, least: least, most: most, begin: func(dice *rand.Rand) (string, func() error, error) {
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
		process("instance stopped", "api-", 0, 2*second, syscall.SIGTERM, 0),
		process("instance frozen", "api-", 2*second, 9*second, syscall.SIGSTOP, syscall.SIGCONT),
		process("worker killed", "worker-", 0, 2*second, syscall.SIGKILL, 0),
		process("worker stopped", "worker-", 0, 2*second, syscall.SIGTERM, 0),
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
