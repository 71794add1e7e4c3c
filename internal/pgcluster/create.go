package pgcluster

import (
	"context"
	"fmt"
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

// copyUpstream makes a replica and starts it, and returns when it streams.
func (s *Server) copyUpstream(ctx context.Context) error {
	err := s.cluster.home.Run(ctx, localserver.Config{
		Name: s.name + "-basebackup", Path: s.programs.basebackup, Env: s.programs.env, Dir: s.dir,
		Args: []string{
			"-D", s.dir, "-d", conninfo(s.upstream.Load().port), "-R", "-X", "stream",
			"-C", "-S", s.name, "-c", "fast", "--no-sync",
		},
	})
	if err != nil {
		return err
	}
	if err := s.configure(); err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	if err := s.waitStream(ctx, true); err != nil {
		return fmt.Errorf("%w\n%s", err, s.Log())
	}
	return s.WaitCaughtUp(ctx)
}
