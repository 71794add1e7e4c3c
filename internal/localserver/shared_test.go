package localserver_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

type cluster struct{ closed *int }

func (c cluster) Close() error { *c.closed++; return nil }
func (c cluster) Logs() string { return "what the server said" }

// tb records what becomes of a test.
type tb struct {
	fails, skipped, fatal bool
	log                   strings.Builder
	cleanups              []func()
}

func (b *tb) Helper()                      {}
func (b *tb) Cleanup(f func())             { b.cleanups = append(b.cleanups, f) }
func (b *tb) Failed() bool                 { return b.fails }
func (b *tb) Logf(format string, a ...any) { fmt.Fprintf(&b.log, format, a...) }
func (b *tb) Skipf(string, ...any)         { b.skipped = true; runtime.Goexit() }
func (b *tb) Fatalf(string, ...any)        { b.fatal = true; runtime.Goexit() }

func (b *tb) run(test func(localserver.TB)) *tb {
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(b)
	}()
	<-done
	for _, f := range b.cleanups {
		f()
	}
	return b
}

type runner func() int

func (r runner) Run() int { return r() }

func TestSharedOpensOnceAndClosesBeforeGoleakLooks(t *testing.T) {
	opened, closed := 0, 0
	shared := localserver.NewShared(func(context.Context) (cluster, error) {
		opened++
		return cluster{&closed}, nil
	})
	code := shared.Around(runner(func() int {
		good, bad := &tb{}, &tb{fails: true}
		good.run(func(tb localserver.TB) { shared.Get(tb) })
		bad.run(func(tb localserver.TB) { shared.Get(tb) })
		if good.log.String() != "" || !strings.Contains(bad.log.String(), "what the server said") {
			t.Errorf("logs: %q when good, %q when failed", &good.log, &bad.log)
		}
		if opened != 1 || closed != 0 {
			t.Errorf("within: opened %d times, closed %d times", opened, closed)
		}
		return 5
	})).Run()
	if code != 5 || closed != 1 {
		t.Errorf("after: code %d, closed %d times", code, closed)
	}
	if localserver.NewShared(func(context.Context) (c cluster, err error) {
		t.Error("opened though no test asked for it")
		return c, nil
	}).Around(runner(func() int { return 0 })).Run() != 0 {
		t.Error("a package whose tests need no servers failed")
	}
}

func TestSharedSkipsOnlyWhereItMay(t *testing.T) {
	missing := fmt.Errorf("wrapped: %w", localserver.ErrNotInstalled)
	for _, c := range []struct {
		name     string
		required string
		err      error
		skips    bool
	}{
		{"missing", "", missing, true},
		{"missing and required", "1", missing, false},
		{"broken", "", errors.New("it does not start"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("SCALEAWARE_REQUIRE_SERVERS", c.required)
			shared := localserver.NewShared(func(context.Context) (cluster, error) { return cluster{}, c.err })
			for range 2 { // the second does not try again
				b := (&tb{}).run(func(tb localserver.TB) { shared.Get(tb) })
				if b.skipped != c.skips || b.fatal == c.skips {
					t.Errorf("skipped: %v, fatal: %v", b.skipped, b.fatal)
				}
			}
		})
	}
}
