package main_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// What a session of a server does to others, and what befalls one.

// pid asks a server for the number of one of its processes, 0 if there is none.
func pid(ctx context.Context, server *pgcluster.Server, sql string) (pid int, err error) {
	conn, err := server.Connect(ctx, soakDatabase)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT coalesce(("+sql+"), 0)").Scan(&pid)
	return pid, err
}

func signalReceiver(s *soak, signal syscall.Signal) func(context.Context, int) error {
	return func(ctx context.Context, n int) error {
		receiver, err := pid(ctx, s.pg.Servers()[n], "SELECT pid FROM pg_stat_wal_receiver")
		if err != nil || receiver == 0 {
			return errors.Join(err, errors.New("the replica has no receiver"))
		}
		return syscall.Kill(receiver, signal)
	}
}

// killBackend kills one process that serves a client: PostgreSQL ends all others, too, and recovers from its log.
func killBackend(ctx context.Context, server *pgcluster.Server) error {
	backend, err := pid(ctx, server, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1")
	if err != nil || backend == 0 {
		return errors.Join(err, errors.New("the primary has no client"))
	}
	return syscall.Kill(backend, syscall.SIGKILL)
}

// lockLeads does what a change of the schema does: until it ends, nobody reads or writes leads, on replicas neither.
func (s *soak) lockLeads(ctx context.Context, server *pgcluster.Server) error {
	conn, err := server.Connect(ctx, soakDatabase)
	if err != nil {
		return err
	}
	s.locker = conn
	_, err = conn.Exec(ctx, `BEGIN; LOCK TABLE "Lead" IN ACCESS EXCLUSIVE MODE`)
	return err
}

// cancelReads makes a replica cancel what it reads when the primary's log wants it so, and makes the primary want it a hundred
// times a second.
func (s *soak) cancelReads(ctx context.Context, replica *pgcluster.Server) error {
	if err := replica.Exec(ctx, "alter system set max_standby_streaming_delay = 0", "select pg_reload_conf()"); err != nil {
		return err
	}
	primary := s.primary()
	lctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lctx.Err() == nil { // where the primary is another fault's, nothing is cancelled
			lockAgainAndAgain(lctx, primary)
			s.rest(100 * time.Millisecond)
		}
	}()
	s.canceller = func() { stop(); <-ended }
	return nil
}

// lockAgainAndAgain takes and gives back the lock that a change of the schema needs, until an error.
func lockAgainAndAgain(ctx context.Context, primary *pgcluster.Server) {
	conn, err := primary.Connect(ctx, soakDatabase)
	if err != nil {
		return
	}
	defer conn.Close(context.Background())
	for err == nil {
		_, err = conn.Exec(ctx, `BEGIN; SET LOCAL lock_timeout = '1s'; LOCK TABLE "Lead" IN ACCESS EXCLUSIVE MODE; COMMIT; SELECT pg_sleep(0.01)`)
	}
}

func (s *soak) leaveReads(ctx context.Context, replica *pgcluster.Server) error {
	s.canceller()
	var cancelled string
	conn, err := replica.Connect(ctx, soakDatabase)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, "SELECT confl_lock::text FROM pg_stat_database_conflicts WHERE datname = current_database()").Scan(&cancelled); err != nil {
		return err
	}
	s.log("%s has cancelled %s reads until now", replica.Name(), cancelled)
	if err := replica.Exec(ctx, "alter system reset max_standby_streaming_delay", "select pg_reload_conf()"); err != nil {
		return fmt.Errorf("%s keeps cancelling reads: %w", replica.Name(), err)
	}
	return nil
}
