package pgcluster

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// with calls do with a connection to database postgres. One is kept from call to call: where forks are slow, a connection
// takes as long as a thousand queries.
func (s *Server) with(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := s.session(ctx)
	if err != nil {
		return err
	}
	defer s.giveBack(conn)
	return do(conn)
}

func (s *Server) session(ctx context.Context) (*pgx.Conn, error) {
	s.mu.Lock()
	conn := s.idle
	s.idle = nil
	s.mu.Unlock()
	if conn != nil {
		if conn.Ping(ctx) == nil {
			return conn, nil
		}
		hangUp(conn)
	}
	return s.Connect(ctx, "postgres")
}

func (s *Server) giveBack(conn *pgx.Conn) {
	if !conn.IsClosed() && conn.PgConn().TxStatus() == 'I' {
		s.mu.Lock()
		conn, s.idle = s.idle, conn
		s.mu.Unlock()
	}
	if conn != nil {
		hangUp(conn)
	}
}

// hangUp does not wait for a server that is frozen.
func hangUp(conn *pgx.Conn) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = conn.Close(ended)
}
