package dbsplit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/dbsplit"
)

// refuser is a server that lets nobody in, and says why as PostgreSQL would.
func refuser(t *testing.T) (port string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				backend := pgproto3.NewBackend(conn, conn)
				if _, err := backend.ReceiveStartupMessage(); err != nil {
					return
				}
				backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "password authentication failed for user \"app\""})
				_ = backend.Flush()
			}()
		}
	}()
	_, port, err = net.SplitHostPort(listener.Addr().String())
	must(t, err)
	return port
}

// However a password is written, as it is, escaped in a URL or quoted among keywords, and however an error is wrapped on its
// way, none of its spellings reaches an error, the log, the metrics or a client of the management listener.
func TestNoSpellingOfAPasswordIsTold(t *testing.T) {
	t.Parallel()
	for name, password := range map[string]string{
		"signs": `c4n4ry@/:?#[]%&=+ '"\;,|`, "lines": "c4n4ry\tx", "letters": "c4n4ryäß漢", "like a URL": "c4n4ry@evil.example:1/x?password=c4n4ry", "like keywords": "c4n4ry host=evil.example password=c4n4ry",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			quoted := "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password) + "'"
			port := refuser(t)
			var log syncBuffer
			reg := prometheus.NewRegistry()
			db := run(t, dbsplit.Nodes{
				Primary: (&url.URL{Scheme: "postgres", User: url.UserPassword("app", password), Host: "127.0.0.1:" + port, Path: "/db", RawQuery: "sslmode=disable"}).String(),
				Replicas: []string{
					"host=127.0.0.1 user=app dbname=db sslmode=disable password=" + quoted + " port=1",
					"postgres://app@127.0.0.1:2/db?sslmode=disable&password=" + url.QueryEscape(password),
				},
			}, &dbsplit.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), Registerer: reg})
			await(t, db, "all to be logged", func() bool { return strings.Count(log.String(), "node is down") == 3 })
			ctx := within(t, 20*time.Second)
			_, err := db.Exec(ctx, "select 1")
			_, position := db.Position(ctx)
			all := []error{err, position, db.Ready(ctx), db.Read().QueryRow(ctx, "select 1").Scan(nil)}
			var answers bytes.Buffer
			handler, err := admin.New(db.Operations(), &admin.Options{AllowInsecureLoopback: true, Logger: slog.New(slog.NewTextHandler(&log, nil)), Checks: []admin.Check{{Name: "database", Ready: db.Ready}}})
			must(t, err)
			h := httptest.NewServer(handler)
			defer h.Close()
			for _, op := range db.Operations() {
				target := strings.NewReplacer("{table}", "x", "{name}", "x").Replace(op.Path)
				answers.WriteString(call(t, h, op.Method, target, "").body)
			}
			answers.WriteString(call(t, h, "GET", "/readyz?verbose", "").body)
			answers.WriteString(call(t, h, "GET", "/health", "").body)
			families, err := reg.Gather()
			must(t, err)
			for _, told := range append(all, errors.New(log.String()), errors.New(answers.String()), fmt.Errorf("%v", families)) {
				if told == nil {
					t.Error("no error")
					continue
				}
				wrapped := fmt.Errorf("a: %w", errors.Join(fmt.Errorf("b: %w", told), context.Canceled))
				for _, text := range []string{told.Error(), fmt.Sprintf("%+v %#v %q", wrapped, wrapped, wrapped)} {
					if strings.Contains(text, "c4n4ry") {
						t.Errorf("told: %.600s", text)
					}
				}
			}
			if !strings.Contains(log.String(), "28P01") && !strings.Contains(log.String(), "authentication") {
				t.Errorf("the refusal itself is not told: %.600s", log.String())
			}
		})
	}
}

// Strange schemes, lists and hosts in the place of one server's connection string are mistakes, told without what they hold.
func TestStrangeConnectionStrings(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"mysql://app:c4n4ry@h/db", "http://app:c4n4ry@169.254.169.254/latest", "file:///etc/passwd?c4n4ry", "javascript:c4n4ry", "postgres://app:c4n4ry@h1,h2/db", "postgres://app:c4n4ry@h:1,h:2/db",
		"postgres://app:c4n4ry@h:99999/db", "postgres://app:c4n4ry@h:0x10/db", "postgres://app:c4n4ry@[::1/db", "postgres://app:c4n4ry@h/db?node_addr=localhost", "postgres://app:c4n4ry@h/db?node_addr=1.2.3.4:5",
		"postgres://app:c4n4ry@h/db?node_weight=1e309", "postgres://app:c4n4ry@h/db?node_pooler=c4n4ry", "host=h password='c4n4ry", "host=h,i password=c4n4ry", "c4n4ry", "postgres://app:c4n4ry%zz@h/db", "postgres://app:c4n4ry\x00@h/db",
	} {
		_, err := dbsplit.Open(t.Context(), dbsplit.Nodes{Primary: dsn, Replicas: []string{dsn}}, nil)
		if err == nil || strings.Contains(fmt.Sprintf("%+v", err), "c4n4ry") {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}
