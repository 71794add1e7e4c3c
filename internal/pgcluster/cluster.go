package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

// A Cluster is a primary and its replicas. Servers keep their places: after
// [Server.Promote] Primary is still the server that began as the primary.
type Cluster struct {
	opts       Options
	home       *localserver.Home
	servers    []*Server
	deadPort   int  // reserved, and nobody listens
	statements bool // pg_stat_statements is preloaded
	databases  atomic.Int64
}

// Start starts a cluster. The context bounds the start only. Nil options are
// legal: a primary alone.
func Start(ctx context.Context, opts *Options) (*Cluster, error) {
	checked, err := opts.checked()
	if err != nil {
		return nil, err
	}
	programs, err := find()
	if err != nil {
		return nil, err
	}
	home, err := localserver.Open(&localserver.Options{Dir: checked.Dir, DropRoot: true})
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: checked, home: home, statements: true}
	if err := c.start(ctx, programs); err != nil {
		if logs := c.Logs(); logs != "" {
			err = fmt.Errorf("%w\n%s", err, logs)
		}
		return nil, errors.Join(err, home.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, programs programs) error {
	var err error
	if c.deadPort, err = c.home.Port(); err != nil {
		return err
	}
	primary, err := c.add("primary", programs)
	if err != nil {
		return err
	}
	if err := primary.initialise(ctx); err != nil {
		return err
	}
	for i := range c.opts.Replicas {
		replica, err := c.add(fmt.Sprintf("replica%d", i), programs)
		if err != nil {
			return err
		}
		replica.upstream.Store(primary)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for _, s := range c.servers[1:] {
		group.Go(func() error {
			if err := s.copyUpstream(groupCtx, "-C", "-S", s.name); err != nil {
				return err
			}
			return s.startReplica(groupCtx)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if c.opts.Synchronous > 0 {
		// Not before: commits would wait for replicas that are not there.
		return primary.set(ctx, "synchronous_standby_names", fmt.Sprintf("ANY %d (*)", c.opts.Synchronous))
	}
	return nil
}

func (c *Cluster) add(name string, programs programs) (*Server, error) {
	port, err := c.home.Port()
	if err != nil {
		return nil, err
	}
	dir, err := c.home.Mkdir(name)
	if err != nil {
		return nil, err
	}
	s := &Server{cluster: c, name: name, dir: dir, port: port, programs: programs}
	if c.opts.Clocks {
		if err := s.clock(); err != nil {
			return nil, err
		}
	}
	c.servers = append(c.servers, s)
	return s, nil
}

// Close ends all servers and removes all data. It may be called more than once.
func (c *Cluster) Close() error {
	for _, s := range c.servers {
		s.mu.Lock()
		if s.idle != nil {
			hangUp(s.idle)
			s.idle = nil
		}
		s.mu.Unlock()
	}
	err := c.home.Close()
	for _, s := range c.servers {
		s.mu.Lock()
		s.forgetClock()
		s.mu.Unlock()
	}
	return err
}

// Primary is the server that the cluster began with as its primary.
func (c *Cluster) Primary() *Server { return c.servers[0] }

// Replica is the replica number i, from 0.
func (c *Cluster) Replica(i int) *Server { return c.servers[1+i] }

// Servers are the primary and then the replicas.
func (c *Cluster) Servers() []*Server { return append([]*Server(nil), c.servers...) }

// Logs are the ends of all servers' logs, for the report of a failure.
func (c *Cluster) Logs() string {
	var text strings.Builder
	for _, s := range c.servers {
		if log := s.Log(); log != "" {
			const most = 6 << 10
			if len(log) > most {
				log = "…" + log[len(log)-most:]
			}
			fmt.Fprintf(&text, "--- log of %s, %s\n%s", s.name, s.Addr(), log)
		}
	}
	return text.String()
}

// CreateDatabase creates a database and waits until each replica has it. It
// fails when one cannot have it in ten seconds, because it is stopped or cut off.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) error {
	sql := "create database " + pgx.Identifier{name}.Sanitize()
	if err := c.Primary().Exec(ctx, sql); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, s := range c.servers[1:] {
		if s.upstream.Load() == nil {
			continue // promoted: on its own
		}
		if err := s.WaitCaughtUp(ctx); err != nil {
			return fmt.Errorf("database %s: %w", name, err)
		}
	}
	return nil
}

// Database creates a fresh database for a test and returns its name, for
// [Server.URL].
func (c *Cluster) Database(tb localserver.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test%d", c.databases.Add(1))
	if err := c.CreateDatabase(context.Background(), name); err != nil {
		tb.Fatalf("%v", err)
	}
	return name
}

// NewShared is a cluster for all tests of a package, started when the first
// asks for it.
func NewShared(opts *Options) *localserver.Shared[*Cluster] {
	return localserver.NewShared(func(ctx context.Context) (*Cluster, error) { return Start(ctx, opts) })
}
