package localserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// TB is the part of testing.TB that is used here.
type TB interface {
	Helper()
	Cleanup(func())
	Failed() bool
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
}

// A Runner is a *testing.M, or something around one.
type Runner interface{ Run() int }

// A Cluster is what [Shared] shares.
type Cluster interface {
	Close() error
	Logs() string // for the report of a failed test
}

// Shared is one cluster for all tests of a package, started when the first
// test asks for it:
//
//	var shared = pgcluster.NewShared(nil)
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Around(m)) }
//
//	func TestSomething(t *testing.T) { url := shared.Get(t).Database(t) … }
type Shared[C Cluster] struct {
	open func(context.Context) (C, error)

	mu      sync.Mutex
	opened  bool
	cluster C
	err     error
}

// NewShared returns a Shared that opens its cluster by the function given.
func NewShared[C Cluster](open func(context.Context) (C, error)) *Shared[C] {
	return &Shared[C]{open: open}
}

// Get returns the cluster. If its programs are missing the test is skipped,
// unless SCALEAWARE_REQUIRE_SERVERS=1; any other mistake is fatal to it. The
// servers' logs are printed if the test fails.
func (s *Shared[C]) Get(tb TB) C {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.opened {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.cluster, s.err = s.open(ctx)
		s.opened = true
	}
	if errors.Is(s.err, ErrNotInstalled) && os.Getenv("SCALEAWARE_REQUIRE_SERVERS") != "1" {
		tb.Skipf("%v", s.err)
	}
	if s.err != nil {
		tb.Fatalf("%v", s.err)
	}
	cluster := s.cluster
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("%s", cluster.Logs())
		}
	})
	return cluster
}

// Around returns a Runner that runs the one given and closes the cluster
// after it, before goleak looks.
func (s *Shared[C]) Around(m Runner) Runner { return around[C]{m, s} }

type around[C Cluster] struct {
	inner  Runner
	shared *Shared[C]
}

func (a around[C]) Run() int {
	code := a.inner.Run()
	a.shared.mu.Lock()
	defer a.shared.mu.Unlock()
	if a.shared.opened && a.shared.err == nil {
		if err := a.shared.cluster.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	return code
}
