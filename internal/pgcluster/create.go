package pgcluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

// programs are of one installation.
type programs struct {
	postgres, initdb, basebackup string
	env                          []string
}

func find() (p programs, err error) {
	if p.postgres, p.env, err = localserver.Find("postgres"); err != nil {
		return p, err
	}
	if p.initdb, _, err = localserver.Find("initdb"); err != nil {
		return p, err
	}
	p.basebackup, _, err = localserver.Find("pg_basebackup")
	return p, err
}

// initialise makes an empty primary and starts it.
func (s *Server) initialise(ctx context.Context) error {
	err := s.cluster.home.Run(ctx, localserver.Config{
		Name: s.name + "-initdb", Path: s.programs.initdb, Env: s.programs.env, Dir: s.dir,
		Args: []string{
			"-D", s.dir, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C",
			"--no-sync", "--no-instructions",
		},
	})
	if err != nil {
		return err
	}
	if err := s.configure(); err != nil {
		return err
	}
	err = s.Start(ctx)
	if err == nil || !strings.Contains(s.Log(), `could not access file "`+statements+`"`) {
		return err
	}
	// The contrib modules are a package of their own in some distributions.
	s.cluster.statements = false
	if err := s.configure(); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Rebuild makes a server that was [Server.Kill]ed a replica of another one, without a slot there, of which it becomes a fresh
// copy: whatever it had is gone. It returns when that streams.
func (s *Server) Rebuild(ctx context.Context, upstream *Server) error {
	if p := s.current(); p != nil {
		select {
		case <-p.Done():
		default:
			return fmt.Errorf("pgcluster: rebuild %s: it runs; Kill ends it", s.name)
		}
	}
	had, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("pgcluster: rebuild %s: %w", s.name, err)
	}
	for _, entry := range had {
		if err := os.RemoveAll(filepath.Join(s.dir, entry.Name())); err != nil {
			return fmt.Errorf("pgcluster: rebuild %s: %w", s.name, err)
		}
	}
	s.upstream.Store(upstream)
	if err := s.copyUpstream(ctx); err != nil {
		return err
	}
	// The other one's own slot, if it was a replica, is in the copy.
	if err := appendFile(filepath.Join(s.dir, "postgresql.auto.conf"), "\nprimary_slot_name = ''\n"); err != nil {
		return fmt.Errorf("pgcluster: rebuild %s: %w", s.name, err)
	}
	return s.startReplica(ctx)
}

// copyUpstream makes a replica.
func (s *Server) copyUpstream(ctx context.Context, slot ...string) error {
	err := s.cluster.home.Run(ctx, localserver.Config{
		Name: s.name + "-basebackup", Path: s.programs.basebackup, Env: s.programs.env, Dir: s.dir,
		Args: append([]string{
			"-D", s.dir, "-d", conninfo(s.upstream.Load().port), "-R", "-X", "stream", "-c", "fast", "--no-sync",
		}, slot...),
	})
	if err != nil {
		return err
	}
	return s.configure()
}

// startReplica returns when the replica streams and has everything.
func (s *Server) startReplica(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	if err := s.waitStream(ctx, true); err != nil {
		return fmt.Errorf("%w\n%s", err, s.Log())
	}
	return s.WaitCaughtUp(ctx)
}
