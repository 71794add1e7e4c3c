package dbsplitbench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/metrics"
)

// sharedSession is one session of a server that several clients use in turns. Which server process answers makes a difference
// of several per cent, which is more than what is compared.
type sharedSession struct {
	conn     net.Conn
	greeting []byte
}

// sessionOf takes the session of a connection that is open, and tells those who join it what its client was told.
func sessionOf(conn *pgx.Conn) (*sharedSession, error) {
	s := &sharedSession{conn: conn.PgConn().Conn()}
	// dbsplit watches its connections; the others are to go around that.
	if watched := reflect.Indirect(reflect.ValueOf(s.conn)); watched.Kind() == reflect.Struct {
		if below, ok := watched.FieldByName("Conn").Interface().(net.Conn); ok {
			s.conn = below
		}
	}
	if _, ok := s.conn.(*net.TCPConn); !ok {
		return nil, fmt.Errorf("a connection of dbsplit is a %T over a %T, which is not known here", conn.PgConn().Conn(), s.conn)
	}
	greeting := []pgproto3.BackendMessage{&pgproto3.AuthenticationOk{}}
	for _, name := range []string{"server_version", "client_encoding", "standard_conforming_strings", "in_hot_standby"} {
		greeting = append(greeting, &pgproto3.ParameterStatus{Name: name, Value: conn.PgConn().ParameterStatus(name)})
	}
	greeting = append(greeting, &pgproto3.BackendKeyData{ProcessID: conn.PgConn().PID(), SecretKey: []byte{0, 0, 0, 0}}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	for _, message := range greeting {
		var err error
		if s.greeting, err = message.Encode(s.greeting); err != nil {
			return nil, err
		}
	}
	// Were an answer ever taken by the wrong client, the right one would wait for it.
	return s, s.conn.SetDeadline(time.Now().Add(patience))
}

// openPool opens a pool whose one connection is the session.
func (s *sharedSession) openPool(ctx context.Context, url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = 1
	config.ConnConfig.DialFunc = s.dial
	return pgxpool.NewWithConfig(ctx, config)
}

// own is a statement as each client of a session has it for itself: prepared statements are named by their text.
func own(statement string) [3]string { return [3]string{statement, statement + " ", statement + "  "} }

func (s *sharedSession) dial(context.Context, string, string) (net.Conn, error) {
	return &guest{Conn: s.conn, greeting: slices.Clone(s.greeting)}, nil
}

// guest is a session's connection for one client more: the session has been started, and is not ended by it.
type guest struct {
	net.Conn
	started  bool
	greeting []byte
}

func (g *guest) Write(p []byte) (int, error) {
	if !g.started {
		g.started = true
		return len(p), nil
	}
	return g.Conn.Write(p)
}

func (g *guest) Read(p []byte) (int, error) {
	if len(g.greeting) > 0 {
		n := copy(p, g.greeting)
		g.greeting = g.greeting[n:]
		return n, nil
	}
	return g.Conn.Read(p)
}

func (g *guest) Close() error { return nil }

// openSplitSession opens a DB, and returns with it the session of the replica that its reads use.
func openSplitSession(ctx context.Context, primary, replica string) (*dbsplit.DB, *sharedSession, func(), error) {
	var mu sync.Mutex
	opened := make(map[uint32]*pgx.Conn)
	opts := calm()
	registry := prometheus.NewRegistry()
	opts.Registerer = registry
	opts.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		mu.Lock()
		defer mu.Unlock()
		opened[conn.PgConn().PID()] = conn
		return nil
	}
	db, stop, err := openSplit(ctx, opts, primary, replica)
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := func() (*sharedSession, error) {
		if err := awaitFleet(registry, 2); err != nil {
			return nil, err
		}
		var pid uint32
		if err := db.Read().QueryRow(ctx, "select pg_backend_pid()").Scan(&pid); err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		if opened[pid] == nil {
			return nil, fmt.Errorf("dbsplit reads by server process %d, of whose connection it did not tell", pid)
		}
		return sessionOf(opened[pid])
	}()
	if err != nil {
		stop()
		return nil, nil, nil, err
	}
	return db, s, stop, nil
}

// awaitFleet waits until a DB has asked each of its nodes how many connections its fleet has: it uses its pools for that.
func awaitFleet(registry *prometheus.Registry, nodes int) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		families, err := registry.Gather()
		if err != nil {
			return err
		}
		for _, f := range families {
			if f.GetName() == metrics.DBFleetMax.Name && len(f.Metric) == nodes {
				return nil
			}
		}
	}
	return errors.New("dbsplit does not count its fleet's connections")
}
