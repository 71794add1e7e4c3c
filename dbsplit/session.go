package dbsplit

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// session is a connection of its own for one operation: long work must not hold one of the pool's, and its settings must
// not reach the next user of that.
type session struct {
	*pgx.Conn
	db      *DB
	mu      sync.Mutex
	notices []*pgconn.Notice
}

// connect opens a session on the primary that waits for locks no longer than lockTimeout and prints times in UTC.
func (db *DB) connect(ctx context.Context, purpose string, lockTimeout time.Duration) (*session, error) {
	n := db.writer.Load()
	if err := n.sessionless(); err != nil {
		return nil, err
	}
	c := n.config.ConnConfig.Copy()
	c.RuntimeParams["application_name"] = db.opts.Name + " " + purpose
	settings := map[string]string{
		"lock_timeout":                        fmt.Sprint(lockTimeout.Milliseconds()),
		"statement_timeout":                   "0",
		"idle_in_transaction_session_timeout": "0",
		"timezone":                            "UTC",
		"datestyle":                           "ISO",
	}
	if !n.pooled() {
		maps.Copy(c.RuntimeParams, settings)
	}
	s := &session{db: db}
	c.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.notices = append(s.notices, n)
	}
	db.writing.session(1)
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		db.writing.session(-1)
		return nil, n.explainConnect(err)
	}
	recovering := inRecovery(conn.PgConn())
	if n.pooled() {
		recovering, err = prepareSession(ctx, conn, settings)
	}
	if err == nil && recovering {
		err = ErrNotPrimary
	}
	if err != nil {
		hangUp(conn)
		db.writing.session(-1)
		return nil, err
	}
	s.Conn = conn
	return s, nil
}

func (s *session) close() {
	hangUp(s.Conn)
	s.db.writing.session(-1)
}

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
