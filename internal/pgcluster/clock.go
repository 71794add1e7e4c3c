package pgcluster

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

// SetClock sets the server's clock ahead of this machine's, or with a negative duration behind it, as an administrator or ntpd does:
// within a second all its processes see it. Only for a cluster with [Options.Clocks].
func (s *Server) SetClock(ahead time.Duration) error {
	if !s.cluster.opts.Clocks {
		return fmt.Errorf("pgcluster: set the clock of %s: start the cluster with Options.Clocks", s.name)
	}
	// Written whole or not at all: a server may be reading it.
	next := s.clockFile() + ".next"
	if err := os.WriteFile(next, fmt.Appendf(nil, "%+.3f\n", ahead.Seconds()), 0o644); err != nil {
		return fmt.Errorf("pgcluster: set the clock of %s: %w", s.name, err)
	}
	if err := os.Rename(next, s.clockFile()); err != nil {
		return fmt.Errorf("pgcluster: set the clock of %s: %w", s.name, err)
	}
	return nil
}

// clockFile is beside the data directory, which [Server.Rebuild] empties.
func (s *Server) clockFile() string { return filepath.Clean(s.dir) + ".clock" }

// clock makes the server's environment one in which its clock can be set.
func (s *Server) clock() error {
	library, err := localserver.Faketime()
	if err != nil {
		return err
	}
	s.clockEnv = []string{
		"LD_PRELOAD=" + library, "FAKETIME_TIMESTAMP_FILE=" + s.clockFile(), "FAKETIME_CACHE_DURATION=1",
		"FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1",
	}
	return s.SetClock(0)
}

// forgetClock removes what libfaketime leaves in shared memory when its process is killed. s.mu is held.
func (s *Server) forgetClock() {
	if s.clockEnv == nil || s.process == nil {
		return
	}
	for _, name := range []string{"/dev/shm/sem.faketime_sem_%d", "/dev/shm/faketime_shm_%d"} {
		_ = os.Remove(fmt.Sprintf(name, s.process.Pid())) // it has done so itself if it could
	}
}
