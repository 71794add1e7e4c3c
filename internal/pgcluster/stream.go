package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PauseReplay holds back what the primary writes from now on: the replica
// receives it, and does not show it.
func (s *Server) PauseReplay(ctx context.Context) error {
	return s.with(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "select pg_wal_replay_pause()"); err != nil {
			return fmt.Errorf("pgcluster: pause %s: %w", s.name, err)
		}
		return s.pollSQL(ctx, conn, "replay to pause", "select pg_get_wal_replay_pause_state() = 'paused'")
	})
}

// ResumeReplay undoes [Server.PauseReplay]; [Server.WaitCaughtUp] waits for its effect.
func (s *Server) ResumeReplay(ctx context.Context) error {
	err := s.Exec(ctx, "select pg_wal_replay_resume()")
	if Conflicted(err) {
		return nil // the statement itself was in the way of what it let go on
	}
	return err
}

// CutStream points the replica to a port where nobody listens, and returns when
// its WAL receiver is gone. The replica goes on serving what it has.
func (s *Server) CutStream(ctx context.Context) error {
	if err := s.replica("cut the stream of"); err != nil {
		return err
	}
	if err := s.set(ctx, "primary_conninfo", conninfo(s.cluster.deadPort)); err != nil {
		return err
	}
	return s.waitStream(ctx, false)
}

// RestoreStream undoes [Server.CutStream] and returns when WAL streams.
func (s *Server) RestoreStream(ctx context.Context) error {
	if err := s.replica("restore the stream of"); err != nil {
		return err
	}
	if err := s.set(ctx, "primary_conninfo", conninfo(s.upstream.Load().port)); err != nil {
		return err
	}
	return s.waitStream(ctx, true)
}

// Promote makes a replica a primary of its own, on a new timeline, and
// returns when it accepts writes. The old primary lives on, and the other
// replicas stay with it until they [Server.Follow] this one.
func (s *Server) Promote(ctx context.Context) error {
	if err := s.replica("promote"); err != nil {
		return err
	}
	err := s.with(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "select pg_promote(wait => false)"); err != nil {
			return fmt.Errorf("pgcluster: promote %s: %w", s.name, err)
		}
		return s.pollSQL(ctx, conn, "the end of recovery", "select not pg_is_in_recovery()")
	})
	if err == nil {
		s.upstream.Store(nil)
	}
	return err
}

// Follow makes a replica stream from another server, as from one that has
// been promoted, without a slot there, and returns when it does.
func (s *Server) Follow(ctx context.Context, upstream *Server) error {
	if err := s.replica("redirect"); err != nil {
		return err
	}
	s.upstream.Store(upstream)
	if err := s.set(ctx, "primary_slot_name", ""); err != nil {
		return err
	}
	return s.RestoreStream(ctx)
}

// Rejoin starts a primary that was [Server.Stop]ped as a replica of a server that was promoted after it had received
// everything, without a slot there, and returns when it streams.
func (s *Server) Rejoin(ctx context.Context, upstream *Server) error {
	if s.upstream.Load() != nil {
		return fmt.Errorf("pgcluster: rejoin %s: it is a replica already; Follow redirects it", s.name)
	}
	settings := "\nprimary_conninfo = " + quote(conninfo(upstream.port)) + "\nprimary_slot_name = ''\n"
	if err := appendFile(filepath.Join(s.dir, "postgresql.auto.conf"), settings); err != nil {
		return fmt.Errorf("pgcluster: rejoin %s: %w", s.name, err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "standby.signal"), nil, 0o644); err != nil {
		return fmt.Errorf("pgcluster: rejoin %s: %w", s.name, err)
	}
	s.upstream.Store(upstream)
	if err := s.Start(ctx); err != nil {
		return err
	}
	return s.waitStream(ctx, true)
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// SetApplyDelay makes the replica replay each commit this much later than it
// was made; zero ends that. Rounded to milliseconds.
func (s *Server) SetApplyDelay(ctx context.Context, d time.Duration) error {
	return s.set(ctx, "recovery_min_apply_delay", fmt.Sprintf("%dms", d.Milliseconds()))
}

// WaitCaughtUp returns when the replica has replayed everything that its
// upstream had written when it was called.
func (s *Server) WaitCaughtUp(ctx context.Context) error {
	if err := s.replica("wait for"); err != nil {
		return err
	}
	var target, segment int64
	upstream := s.upstream.Load()
	err := upstream.with(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `select (pg_current_wal_insert_lsn() - '0/0')::bigint,
			(select setting::bigint from pg_settings where name = 'wal_segment_size')`).Scan(&target, &segment)
	})
	if err != nil {
		return fmt.Errorf("pgcluster: position of %s: %w", upstream.name, err)
	}
	target = endOfRecord(target, segment)
	return s.with(ctx, func(conn *pgx.Conn) error {
		return s.pollSQL(ctx, conn, "replay to catch up",
			fmt.Sprintf("select pg_last_wal_replay_lsn() - '0/0' >= %d", target))
	})
}

// endOfRecord is the replay position to expect for an insert position. On a
// fresh page the insert position is behind the page's header, while replay stops before it:
// it would never "reach" the target as long as the primary is idle.
func endOfRecord(insert, segment int64) int64 {
	const page, header, segmentHeader = 8192, 24, 40
	switch {
	case insert%segment == segmentHeader:
		return insert - segmentHeader
	case insert%page == header && insert%segment != header:
		return insert - header
	}
	return insert
}

func (s *Server) replica(verb string) error {
	if s.upstream.Load() == nil {
		return fmt.Errorf("pgcluster: %s %s: it is no replica", verb, s.name)
	}
	return nil
}

// set changes a setting of a running server for good, and returns when the
// postmaster has passed it on: it signals its other children with this session.
func (s *Server) set(ctx context.Context, name, value string) error {
	return s.with(ctx, func(conn *pgx.Conn) error {
		var before time.Time
		if err := conn.QueryRow(ctx, "select pg_conf_load_time()").Scan(&before); err != nil {
			return fmt.Errorf("pgcluster: %s: %w", s.name, err)
		}
		for _, sql := range []string{"alter system set " + name + " = " + quote(value), "select pg_reload_conf()"} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return fmt.Errorf("pgcluster: %s: %s: %w", s.name, sql, err)
			}
		}
		return poll(ctx, name+" to change on "+s.name, func() (bool, error) {
			var loaded time.Time
			err := conn.QueryRow(ctx, "select pg_conf_load_time()").Scan(&loaded)
			return loaded.After(before), err
		})
	})
}

// waitStream waits until the WAL receiver streams, or is gone.
func (s *Server) waitStream(ctx context.Context, streams bool) error {
	return s.with(ctx, func(conn *pgx.Conn) error {
		if streams {
			return s.pollSQL(ctx, conn, "the stream",
				fmt.Sprintf("select exists (select from pg_stat_wal_receiver where status = 'streaming' and sender_port = %d)", s.upstream.Load().port))
		}
		return s.pollSQL(ctx, conn, "the stream to end", "select not exists (select from pg_stat_wal_receiver)")
	})
}

func (s *Server) pollSQL(ctx context.Context, conn *pgx.Conn, what, sql string) error {
	return poll(ctx, what+" on "+s.name, func() (holds bool, err error) {
		if err := conn.QueryRow(ctx, sql).Scan(&holds); err != nil {
			return false, fmt.Errorf("pgcluster: waiting for %s on %s: %w", what, s.name, err)
		}
		return holds, nil
	})
}

// Conflicted reports whether replay has cancelled the statement that failed with err.
func Conflicted(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == "40001"
}
