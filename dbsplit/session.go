package dbsplit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// session is a connection of its own for one operation: long work must not hold one of the pool's, and its settings must
// not reach the next user of that.
type session struct {
	*pgx.Conn
	mu      sync.Mutex
	notices []*pgconn.Notice
}

// connect opens a session on the primary that waits for locks no longer than lockTimeout and prints times in UTC.
func (db *DB) connect(ctx context.Context, purpose string, lockTimeout time.Duration) (*session, error) {
	c := db.writer.Load().config.ConnConfig.Copy()
	params := c.RuntimeParams
	params["application_name"] = db.opts.Name + " " + purpose
	params["lock_timeout"] = fmt.Sprint(lockTimeout.Milliseconds())
	params["statement_timeout"] = "0"
	params["idle_in_transaction_session_timeout"] = "0"
	params["timezone"] = "UTC"
	params["datestyle"] = "ISO"
	s := new(session)
	c.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.notices = append(s.notices, n)
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	if inRecovery(conn.PgConn()) {
		hangUp(conn)
		return nil, ErrNotPrimary
	}
	s.Conn = conn
	return s, nil
}

func (s *session) close() { hangUp(s.Conn) }

// warning returns the first warning that the server has sent. Severities are localised, except in their own field.
func (s *session) warning() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.notices {
		if n.SeverityUnlocalized == "WARNING" {
			return n.Message
		}
	}
	return ""
}
