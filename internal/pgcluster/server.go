package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

// A Server is one PostgreSQL server of a [Cluster]. Methods may be called from
// several goroutines, with the exception of two that change the same thing.
type Server struct {
	cluster  *Cluster
	name     string
	dir      string
	port     int
	programs programs
	clockEnv []string               // nil: the machine's clock
	upstream atomic.Pointer[Server] // nil: a primary

	mu      sync.Mutex
	process *localserver.Process // nil: never started
	idle    *pgx.Conn            // of an earlier call of with
}

// Name is "primary", or "replica" and a number from 0; it is the server's
// cluster_name, and a replica's application_name and slot on its upstream.
func (s *Server) Name() string { return s.name }

// Dir is the data directory.
func (s *Server) Dir() string { return s.dir }

// Addr is host:port. It outlives restarts.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL is the connection string of a database, for the superuser.
func (s *Server) URL(database string) string {
	return (&url.URL{
		Scheme: "postgres", User: url.User("postgres"), Host: s.Addr(), Path: "/" + database,
		RawQuery: "sslmode=disable",
	}).String()
}

// Log is the end of what the server has logged, over restarts.
func (s *Server) Log() string {
	if p := s.current(); p != nil {
		return p.Log()
	}
	return ""
}

func (s *Server) current() *localserver.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// Start starts the server again after [Server.Stop] or [Server.Kill], on its
// port and with its data, and returns when it accepts connections.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		select {
		case <-s.process.Done():
		default:
			return fmt.Errorf("pgcluster: start %s: it runs; Stop or Kill it first", s.name)
		}
		s.forgetClock()
	}
	// Its process has been reaped; were the pid another's by now, the lock file
	// of a killed server would keep us from starting.
	lock := filepath.Join(s.dir, "postmaster.pid")
	if err := os.Remove(lock); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("pgcluster: start %s: %w", s.name, err)
	}
	p, err := s.cluster.home.Start(ctx, localserver.Config{
		Name: s.name, Path: s.programs.postgres, Env: append(slices.Clone(s.programs.env), s.clockEnv...), Args: []string{"-D", s.dir}, Dir: s.dir,
		StopSignal: syscall.SIGQUIT, // when the cluster is closed: at once
	})
	if err != nil {
		return err
	}
	s.process = p
	return poll(ctx, s.name+" to accept connections", func() (bool, error) {
		select {
		case <-p.Done():
			return false, fmt.Errorf("pgcluster: %s ended while it started; its log says why", s.name)
		default:
		}
		// Line 8 of the lock file is what pg_ctl waits for too.
		text, _ := os.ReadFile(lock)
		lines := strings.Split(string(text), "\n")
		return len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready", nil
	})
}

// Stop shuts the server down in the fast way: transactions are rolled back,
// connections closed with 57P01. A primary first sends its replicas everything;
// one that is frozen makes it wait, as long as the context lets it.
func (s *Server) Stop(ctx context.Context) error {
	p := s.current()
	if p == nil {
		return nil
	}
	p.Thaw()
	p.Signal(syscall.SIGINT)
	select {
	case <-p.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("pgcluster: stop %s: it still runs; Kill ends it: %w", s.name, ctx.Err())
	}
}

// Kill ends postmaster and all backends with SIGKILL, and returns when they are gone.
func (s *Server) Kill() {
	if p := s.current(); p != nil {
		p.Kill()
	}
}

// Freeze stops postmaster and all backends with SIGSTOP: connections stay
// open, new ones are accepted by the kernel, and nobody answers.
func (s *Server) Freeze() {
	if p := s.current(); p != nil {
		p.Freeze()
	}
}

// Thaw undoes [Server.Freeze].
func (s *Server) Thaw() {
	if p := s.current(); p != nil {
		p.Thaw()
	}
}

// Connect opens a connection to a database; the caller closes it.
func (s *Server) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, s.URL(database))
	if err != nil {
		return nil, fmt.Errorf("pgcluster: %s: %w", s.name, err)
	}
	return conn, nil
}

// Exec executes statements, one by one, in database postgres.
func (s *Server) Exec(ctx context.Context, statements ...string) error {
	return s.with(ctx, func(conn *pgx.Conn) error {
		for _, sql := range statements {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return fmt.Errorf("pgcluster: %s: %s: %w", s.name, sql, err)
			}
		}
		return nil
	})
}

// poll calls holds until it does, it fails or the context ends.
func poll(ctx context.Context, what string, holds func() (bool, error)) error {
	ticker := time.NewTicker(4 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, err := holds()
		if ok || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("pgcluster: waiting for %s: %w", what, ctx.Err())
		}
	}
}
