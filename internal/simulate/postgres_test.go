package simulate

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
)

// postgres is as much of a PostgreSQL server as a witness and a writer need: transactions that get a number with their first
// insert, commit or vanish, and the two questions of readonly/pgwitness, which it answers from what it knows.
type postgres struct {
	world     *world
	committed func(process string)

	mu       sync.Mutex
	next     uint64
	sessions map[*pgSession]bool
}

type pgSession struct {
	process string
	open    bool   // in a transaction
	number  uint64 // of the transaction, 0 before its first insert
}

func newPostgres(w *world, committed func(process string)) *postgres {
	return &postgres{world: w, committed: committed, next: 100, sessions: map[*pgSession]bool{}}
}

// pool is a process's pool on it.
func (p *postgres) pool(process string) *pgxpool.Pool {
	w := p.world
	w.admit(process)
	c, err := pgxpool.ParseConfig("postgres://app@127.0.0.1/shop?sslmode=disable&application_name=db&default_query_exec_mode=simple_protocol")
	if err != nil {
		w.t.Fatal(err)
	}
	c.ConnConfig.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go p.serve(process, server)
		return newLink(w, process, client, queryName), nil
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(pool.Close)
	return pool
}

// queryName is the text of a query, or "" for a greeting.
func queryName(message []byte) string {
	if len(message) > 5 && message[0] == 'Q' {
		return string(message[5:min(len(message), 40)])
	}
	return ""
}

func (p *postgres) serve(process string, conn net.Conn) {
	defer conn.Close()
	b := pgproto3.NewBackend(conn, conn)
	if m, err := b.ReceiveStartupMessage(); err != nil {
		return
	} else if _, ok := m.(*pgproto3.StartupMessage); !ok {
		return // a request to cancel, which comes too late
	}
	b.Send(&pgproto3.AuthenticationOk{})
	for name, value := range map[string]string{"client_encoding": "UTF8", "standard_conforming_strings": "on", "server_version": "17.0"} {
		b.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	b.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	s := &pgSession{process: process}
	p.mu.Lock()
	p.sessions[s] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.sessions, s) // and with it its transaction
	}()
	for b.Flush() == nil {
		m, err := b.Receive()
		if err != nil {
			return
		}
		q, ok := m.(*pgproto3.Query)
		if !ok {
			return
		}
		row := p.query(s, q.String)
		if len(row) > 0 {
			fields := make([]pgproto3.FieldDescription, len(row))
			for i := range fields {
				fields[i] = pgproto3.FieldDescription{Name: []byte("v"), DataTypeOID: row[i].oid, DataTypeSize: -1, TypeModifier: -1}
			}
			b.Send(&pgproto3.RowDescription{Fields: fields})
			data := &pgproto3.DataRow{}
			for _, v := range row {
				data.Values = append(data.Values, []byte(v.text))
			}
			b.Send(data)
		}
		b.Send(&pgproto3.CommandComplete{CommandTag: []byte(strings.ToUpper(strings.Fields(q.String)[0]))})
		status := byte('I')
		if s.open {
			status = 'T'
		}
		b.Send(&pgproto3.ReadyForQuery{TxStatus: status})
	}
}

type pgValue struct {
	oid  uint32
	text string
}

const (
	boolOID, bigintOID, textOID = 16, 20, 25
	onlyServer                  = "7000000000000000000/00000001"
)

func (p *postgres) query(s *pgSession, sql string) []pgValue {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case strings.HasPrefix(sql, "begin"):
		s.open = true
	case strings.HasPrefix(sql, "insert"):
		if s.number == 0 {
			s.number = p.number()
		}
	case strings.HasPrefix(sql, "commit"):
		if s.number != 0 {
			p.committed(s.process)
		}
		s.open, s.number = false, 0
	case strings.HasPrefix(sql, "rollback"):
		s.open, s.number = false, 0
	case strings.HasPrefix(sql, "-- name: readonly_mark"):
		return []pgValue{{textOID, onlyServer}, {bigintOID, fmt.Sprint(p.number())}}
	case strings.HasPrefix(sql, "-- name: readonly_look"):
		numbered, unnumbered := []pgTransaction{}, []pgTransaction{}
		for session := range p.sessions {
			switch {
			case session.number != 0:
				numbered = append(numbered, pgTransaction{Number: session.number, Application: "db"})
			case session.open:
				unnumbered = append(unnumbered, pgTransaction{Application: "db"})
			}
		}
		slices.SortFunc(numbered, func(a, b pgTransaction) int { return int(a.Number) - int(b.Number) })
		return []pgValue{{textOID, onlyServer}, {bigintOID, fmt.Sprint(p.next)}, asJSON(numbered), asJSON(unnumbered), {textOID, "[]"}, {boolOID, "f"}}
	}
	return nil
}

func (p *postgres) number() uint64 {
	p.next++
	return p.next - 1
}

type pgTransaction struct {
	Number      uint64 `json:"number,omitempty"`
	Application string `json:"application"`
}

func asJSON(list []pgTransaction) pgValue {
	text, _ := json.Marshal(list) // numbers and a constant
	return pgValue{textOID, string(text)}
}

// insert writes one row in a transaction that takes its time.
func (p *postgres) insert(ctx context.Context, pool *pgxpool.Pool, process string) error {
	w := p.world
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "insert into w values (1)")
		w.work(millis(w.draw(process, "thinks", w.now()) % 60))
		return err
	})
}
