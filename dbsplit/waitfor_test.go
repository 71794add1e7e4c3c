package dbsplit

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// fakeServer answers every simple query and remembers it. It stands for a server version that cannot be had here.
func fakeServer(t *testing.T, version string) (*pgx.Conn, <-chan string) {
	t.Helper()
	asked := make(chan string, 10)
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := pgproto3.NewBackend(server, server)
		if _, err := b.ReceiveStartupMessage(); err != nil {
			return
		}
		b.Send(&pgproto3.AuthenticationOk{})
		for name, value := range map[string]string{"server_version": version, "standard_conforming_strings": "on", "client_encoding": "UTF8"} {
			b.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
		}
		b.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
		for {
			message, err := b.Receive()
			if err != nil {
				return
			}
			if q, ok := message.(*pgproto3.Query); ok {
				asked <- q.String
				b.Send(&pgproto3.CommandComplete{CommandTag: []byte("WAIT")})
				b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
				if b.Flush() != nil {
					return
				}
			}
		}
	}()
	config, err := pgx.ParseConfig("host=fake user=app sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) { return client, nil }
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); <-done })
	return conn, asked
}

// Servers since PostgreSQL 19 are told what position to wait for.
func TestWaitForLSN(t *testing.T) {
	for version, waits := range map[string]bool{"15.18 (Debian 15.18-0+deb12u1)": false, "18.4": false, "19.0": true, "19beta2": true, "20devel": true, "": false} {
		conn, asked := fakeServer(t, version)
		if waitsForLSN(conn) != waits {
			t.Errorf("version %q waits: %v", version, !waits)
		}
		if !waits {
			continue
		}
		db, err := Open(t.Context(), Nodes{Primary: "host=fake"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		db.wanted.Store(0x1_0000_00AB)
		db.waitForLSN(t.Context(), conn)
		db.Close()
		if sql := <-asked; !strings.HasPrefix(sql, "WAIT FOR LSN '1/AB' WITH (") || !strings.Contains(sql, "NO_THROW") || !strings.Contains(sql, "TIMEOUT") {
			t.Errorf("the server is asked %q", sql)
		}
	}
}
