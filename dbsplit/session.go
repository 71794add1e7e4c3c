package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// session is a connection of its own for one operation: long work must not hold one of the pool's, and its settings must
// not reach the next user of that.
type session struct {
	*pgx.Conn
	db      *DB
	node    *node
	mu      sync.Mutex
	notices []*pgconn.Notice
}

// operate opens a session for an operation that writes, where writes go, if the gate lets it. Its errors are for the caller
// of the operation.
func (db *DB) operate(ctx context.Context, purpose string) (*session, error) {
	if err := db.allow(ctx); err != nil {
		return nil, refusedOperation(err)
	}
	n, err := db.writesTo(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	s, err := db.connect(ctx, n, purpose)
	if err != nil {
		return nil, unavailable(err)
	}
	if err := db.allow(ctx); err != nil { // asked again, as acquireWrite does
		s.close()
		return nil, refusedOperation(err)
	}
	return s, nil
}

// step does a part of an operation that cannot be taken back, unless writes have moved.
func (s *session) step(do func() error) error {
	if err := s.db.stillWriter(s.node); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return s.db.overtaken(s.node)
}

// connect opens a session on n, the primary, that waits for locks no longer than maintenanceLockTimeout and prints times in
// UTC.
func (db *DB) connect(ctx context.Context, n *node, purpose string) (*session, error) {
	if err := n.sessionless(); err != nil {
		return nil, err
	}
	c := n.config.ConnConfig.Copy()
	c.RuntimeParams["application_name"] = db.opts.Name + " " + purpose
	settings := map[string]string{
		"lock_timeout":                        fmt.Sprint(maintenanceLockTimeout.Milliseconds()),
		"statement_timeout":                   "0",
		"idle_in_transaction_session_timeout": "0",
		"timezone":                            "UTC",
		"datestyle":                           "ISO",
	}
	if !n.pooled() {
		maps.Copy(c.RuntimeParams, settings)
	}
	s := &session{db: db, node: n}
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

// run runs one statement of maintenance. A warning is an error: PostgreSQL skips with one what it will not do. Severities
// are localised, except in their own field.
func (s *session) run(ctx context.Context, sql string) error {
	s.mu.Lock()
	s.notices = nil // those of the session's start are about something else
	s.mu.Unlock()
	if _, err := s.Exec(ctx, sql); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.notices {
		if n.SeverityUnlocalized == "WARNING" {
			return errors.New(n.Message)
		}
	}
	return nil
}
