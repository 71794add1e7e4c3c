package rediscluster

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

// SetClock sets the server's clock ahead of this machine's, or with a negative duration behind it, as an administrator or
// ntpd does: within a second the server sees it. Only for a cluster with [Options.Clocks].
func (n *Node) SetClock(ahead time.Duration) error {
	if n.cluster.opts.Clocks == nil {
		return fmt.Errorf("rediscluster: set the clock of %s: start the cluster with Options.Clocks", n.name)
	}
	// Written whole or not at all: the server may be reading it.
	next := n.clockFile() + ".next"
	if err := os.WriteFile(next, fmt.Appendf(nil, "%+.3f\n", ahead.Seconds()), 0o644); err != nil {
		return fmt.Errorf("rediscluster: set the clock of %s: %w", n.name, err)
	}
	if err := os.Rename(next, n.clockFile()); err != nil {
		return fmt.Errorf("rediscluster: set the clock of %s: %w", n.name, err)
	}
	return nil
}

func (n *Node) clockFile() string { return filepath.Clean(n.dir) + ".clock" }

// clocks is the environment of servers whose clocks can be set.
func (n *Node) clocks() ([]string, error) {
	library, err := localserver.Faketime()
	if err != nil {
		return nil, err
	}
	return []string{
		// libc's malloc stands before jemalloc, which asks for the time before libfaketime knows how.
		"LD_PRELOAD=" + library + ":libc.so.6", "FAKETIME_TIMESTAMP_FILE=" + n.clockFile(), "FAKETIME_CACHE_DURATION=1",
		"FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1",
	}, nil
}

// forgetClock removes what libfaketime leaves in shared memory when its process is killed. n.mu is held.
func (n *Node) forgetClock() {
	if n.cluster.opts.Clocks == nil || n.process == nil {
		return
	}
	for _, name := range []string{"/dev/shm/sem.faketime_sem_%d", "/dev/shm/faketime_shm_%d"} {
		_ = os.Remove(fmt.Sprintf(name, n.process.Pid())) // it has done so itself if it could
	}
}
