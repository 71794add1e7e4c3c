package dbsplit_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/dbsplit"
)

const path = "/api/v1/performance/database/"

// listener serves a DB's operations as the management listener does.
func listener(t testing.TB, db *dbsplit.DB) *httptest.Server {
	t.Helper()
	h, err := admin.New(db.Operations(), &admin.Options{AllowInsecureLoopback: true})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { h.Run(ctx) })
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.Close(); cancel(); wg.Wait() })
	return s
}

type answer struct {
	status int
	body   string
}

func call(t testing.TB, s *httptest.Server, method, path, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, 30*time.Second), method, s.URL+path, strings.NewReader(body))
	must(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := s.Client().Do(req)
	must(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(t, err)
	s.Client().CloseIdleConnections()
	return answer{res.StatusCode, string(text)}
}

func decode[T any](t testing.TB, a answer, status int) (v T) {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return v
}

// wants checks an error's status and that its text says something.
func (a answer) wants(t testing.TB, status int, text string) {
	t.Helper()
	if a.status != status || !strings.Contains(a.body, text) {
		t.Errorf("status %d: %s; want %d and %q", a.status, a.body, status, text)
	}
}

func TestCancelSparesReplication(t *testing.T) {
	t.Parallel()
	db, c, _ := settled(t, nil)
	s := listener(t, db)
	ctx := within(t, 30*time.Second)
	streams := func() (n int) {
		for _, server := range c.Servers() {
			n += strings.Count(server.Log(), "START_REPLICATION")
		}
		return n
	}
	before := streams()
	result := make(chan error, 2)
	sleep := func(q queryRower) {
		result <- q.QueryRow(ctx, "select pg_sleep(60)").Scan(new(string))
	}
	go sleep(db)
	go sleep(db.Read())
	elsewhere, err := c.Primary().Connect(ctx, "postgres")
	must(t, err)
	defer elsewhere.Close(context.Background())
	undisturbed := make(chan error, 1)
	go func() {
		_, err := elsewhere.Exec(ctx, "select pg_sleep(60)")
		undisturbed <- err
	}()
	old := path + "cancel-long-running?older_than=1s"
	pid := elsewhere.PgConn().PID()
	runs := func() bool {
		return get[bool](t, ctx, db, "select exists (select from pg_stat_activity where pid = $1 and state = 'active' and now() - query_start > '1s')", pid)
	}
	find := func(nodes []dbsplit.CancelReport) (n, ours int) {
		for _, node := range nodes {
			if node.Error != "" {
				t.Fatal(node.Error)
			}
			for _, st := range node.Statements {
				n++
				if strings.Contains(st.Query, "pg_sleep(60)") {
					ours++
				}
			}
		}
		return n, ours
	}
	await(t, db, "all three statements to be old", func() bool {
		nodes, err := db.CancelLongRunning(ctx, dbsplit.CancelOptions{OlderThan: time.Second, DryRun: true})
		must(t, err)
		_, ours := find(nodes)
		return ours == 2 && runs()
	})
	if r := decode[dbsplit.CancelReply](t, call(t, s, "POST", old+"&dry_run=true", ""), 200); r.Count != 0 {
		t.Errorf("a dry run counts %d", r.Count)
	}
	select {
	case err := <-result:
		t.Fatalf("a dry run cancelled: %v", err)
	default:
	}
	r := decode[dbsplit.CancelReply](t, call(t, s, "POST", old, ""), 200)
	if n, ours := find(r.Nodes); n != 2 || ours != 2 || r.Count != 2 {
		t.Errorf("cancelled %+v", r)
	}
	for range 2 {
		if err := <-result; err == nil || !strings.Contains(err.Error(), "57014") {
			t.Errorf("the statement ended with %v", err)
		}
	}
	if !runs() {
		t.Error("another database's statement does not run any more")
	}
	exec(t, db, "select pg_terminate_backend($1)", pid)
	if err := <-undisturbed; err == nil || !strings.Contains(err.Error(), "57P01") {
		t.Errorf("another database's statement ended with %v, not by the test's hand", err)
	}
	now := decode[dbsplit.ReplicationReport](t, call(t, s, "GET", path+"replication", ""), 200).Streams
	if len(now) != 2 || now[0].State != "streaming" || now[1].State != "streaming" {
		t.Errorf("replication: %+v", now)
	}
	if streams() != before {
		t.Error("a replication stream was cancelled")
	}
	call(t, s, "POST", path+"cancel-long-running?older_than=10ms", "").wants(t, 400, "older_than")
	call(t, s, "POST", path+"cancel-long-running?older_than=soon", "").wants(t, 400, "older_than")
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	g := new(gate)
	db, _, database := settled(t, &dbsplit.Options{Gate: g})
	s := listener(t, db)
	exec(t, db, "alter database "+database+" set timezone = 'America/New_York'")
	exec(t, db, `create table "Event" (id bigint generated always as identity, "entityId" text, "timestamp" timestamptz not null) partition by range ("timestamp")`)
	exec(t, db, `create index on "Event" ("entityId", "timestamp")`)
	exec(t, db, `create table "Event_2024_01" partition of "Event" for values from ('2024-01-01 00:00:00+00') to ('2024-02-01 00:00:00+00')`)
	exec(t, db, `create table "Event_default" partition of "Event" default`)
	exec(t, db, `insert into "Event" ("timestamp") values ('2023-05-05')`)
	events := path + "partitions/Event"

	r := decode[dbsplit.PartitionReport](t, call(t, s, "GET", events, ""), 200)
	if len(r.Partitions) != 2 || !r.Partitions[0].From.Equal(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)) || !r.Partitions[1].Default || r.DefaultRows != 1 {
		t.Errorf("listed %+v", r)
	}
	if dry := decode[dbsplit.PartitionReport](t, call(t, s, "POST", events+"?dry_run=true", ""), 200); len(dry.Created) != 4 || len(dry.Partitions) != 2 {
		t.Errorf("dry run: %+v", dry)
	}
	g.set(errMaintenance)
	call(t, s, "POST", events, "").wants(t, 503, "read-only")
	call(t, s, "GET", events, "").wants(t, 200, "Event_2024_01")
	g.set(nil)

	r = decode[dbsplit.PartitionReport](t, call(t, s, "POST", events+"?months=2", ""), 200)
	now := time.Now().UTC()
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	if len(r.Created) != 3 || len(r.Partitions) != 5 || len(r.Gaps) != 1 {
		t.Fatalf("made %+v", r)
	}
	for i, p := range r.Partitions[1:4] {
		from := month.AddDate(0, i, 0)
		if p.Name != from.Format("Event_2006_01") || !p.From.Equal(from) || !p.To.Equal(from.AddDate(0, 1, 0)) {
			t.Errorf("partition %d is %+v", i, p)
		}
	}
	ctx := within(t, 20*time.Second)
	const indexes = `select count(*)::int from pg_inherits i join pg_class c on c.oid = i.inhrelid where c.relkind = 'i' and c.relname like 'Event%'`
	if n := get[int](t, ctx, db, indexes); n != 5 {
		t.Errorf("%d of 5 partitions have the parent's index attached", n)
	}
	if n := get[int](t, ctx, db, "select count(*)::int from pg_constraint where conname = 'scaleaware_bounds'"); n != 0 {
		t.Errorf("%d helping constraints are left", n)
	}
	exec(t, db, `insert into "Event" ("timestamp") values ($1), ($2)`, month, month.AddDate(0, 1, 0).Add(-time.Microsecond))
	if n := get[int](t, ctx, db, "select count(*)::int from "+pgx.Identifier{month.Format("Event_2006_01")}.Sanitize()); n != 2 {
		t.Errorf("%d of 2 rows at the month's ends in UTC are in its partition", n)
	}
	if again := decode[dbsplit.PartitionReport](t, call(t, s, "POST", events+"?months=2", ""), 200); len(again.Created) != 0 {
		t.Errorf("again: %v", again.Created)
	}

	exec(t, db, `insert into "Event" ("timestamp") values ($1)`, month.AddDate(0, 3, 5))
	call(t, s, "POST", events, "").wants(t, 409, "move them out")
	if n := get[int](t, ctx, db, "select count(*)::int from pg_inherits where inhparent = '\"Event\"'::regclass"); n != 5 {
		t.Errorf("a refused call left %d partitions", n)
	}
	exec(t, db, "create table plain (n int); create table weekly (d date) partition by range (d); create table listed (n int) partition by list (n)")
	exec(t, db, "create table w1 partition of weekly for values from ('"+month.Format(time.DateOnly)+"') to ('"+month.AddDate(0, 0, 7).Format(time.DateOnly)+"')")
	call(t, s, "POST", path+"partitions/plain", "").wants(t, 409, "not partitioned")
	call(t, s, "POST", path+"partitions/weekly", "").wants(t, 409, "w1 covers a part")
	call(t, s, "GET", path+"partitions/listed", "").wants(t, 501, "ranges")
	call(t, s, "POST", path+"partitions/nothing", "").wants(t, 404, "no table")
	call(t, s, "POST", events+"?months=-1", "").wants(t, 400, "months")
}

// A reader of the parent does not stop an attach, and a lock that does is not queued behind.
func TestPartitionsGiveUpOnLocks(t *testing.T) {
	t.Parallel()
	db, _, _ := settled(t, nil)
	exec(t, db, `create table event (d date) partition by range (d)`)
	tx, err := db.Begin(t.Context())
	must(t, err)
	exec(t, tx, "insert into event select now() where false")
	if _, err := db.EnsurePartitions(within(t, 20*time.Second), "event", 1, false); err != nil {
		t.Errorf("beside a writer: %v", err)
	}
	must(t, tx.Rollback(t.Context()))
	tx, err = db.Begin(t.Context())
	must(t, err)
	exec(t, tx, "lock table event in access exclusive mode")
	go func() {
		time.Sleep(time.Second)
		tx.Rollback(context.Background())
	}()
	if _, err := db.EnsurePartitions(within(t, 20*time.Second), "event", 3, false); err != nil {
		t.Errorf("after a lock of a second: %v", err)
	}
}

func TestSlowQueries(t *testing.T) {
	t.Parallel()
	db, c, _ := settled(t, nil)
	s := listener(t, db)
	ctx := within(t, 20*time.Second)
	call(t, s, "GET", path+"slow-queries", "").wants(t, 501, "CREATE EXTENSION")
	if !get[bool](t, ctx, db, "select exists (select from pg_available_extensions where name = 'pg_stat_statements')") {
		if os.Getenv("SCALEAWARE_REQUIRE_SERVERS") == "1" {
			t.Fatal("this PostgreSQL has no contrib modules: install them (postgresql-contrib)")
		}
		t.Skip("this PostgreSQL has no contrib modules")
	}
	exec(t, db, "create schema elsewhere; create extension pg_stat_statements schema elsewhere")
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	get[string](t, ctx, db.Read(dbsplit.PreferPrimary()), "select pg_sleep(0.15)::text")
	first := decode[dbsplit.SlowQueriesReport](t, call(t, s, "GET", path+"slow-queries", ""), 200)
	if first.Nodes[0].Windowed {
		t.Error("the first call has nothing to compare with")
	}
	for range 3 {
		get[string](t, ctx, db, "select pg_sleep(0.15)::text")
		get[string](t, ctx, db.Read(), "select pg_sleep(0.15)::text")
	}
	r := decode[dbsplit.SlowQueriesReport](t, call(t, s, "GET", path+"slow-queries", ""), 200)
	top := r.Merged[0]
	if !strings.Contains(top.Query, "pg_sleep($1)") || top.Calls != 6 || !top.Slow || top.MeanMS < 140 || len(top.Nodes) < 2 || !r.Nodes[0].Windowed {
		t.Errorf("merged %+v", top)
	}
	if q := r.Nodes[0].Queries; len(q) == 0 || q[0].Calls != 3 {
		t.Errorf("on the primary %+v", q)
	}
	call(t, s, "GET", path+"slow-queries?limit=0", "").wants(t, 400, "limit")
}

func TestPoolOperation(t *testing.T) {
	db, _, _ := settled(t, &dbsplit.Options{MaxConns: 4})
	s := listener(t, db)
	ctx := within(t, 20*time.Second)
	rows, err := db.Query(ctx, "select generate_series(1, 3)") // on the old pool
	must(t, err)
	call(t, s, "POST", path+"pool?dry_run=true", `{"max": 50}`).wants(t, 200, `"max":4`)
	r := decode[dbsplit.PoolReport](t, call(t, s, "POST", path+"pool", `{"max": 50}`), 200)
	if len(r.Pools) != 4 || r.Pools[0].Max != 50 || db.Stat().MaxConns() != 50 {
		t.Errorf("resized to %+v", r)
	}
	if n, err := pgx.CollectRows(rows, pgx.RowTo[int]); err != nil || len(n) != 3 {
		t.Errorf("the statement under way: %v, %v", n, err)
	}
	exec(t, db, "select 1")
	call(t, s, "POST", path+"pool", `{"max": 0}`).wants(t, 400, "max")
	call(t, s, "POST", path+"pool", `{"maximum": 5}`).wants(t, 400, "maximum")
	call(t, s, "POST", path+"pool", "").wants(t, 400, "max")
}

// Nobody notices a resize: callers that had the old pool in hand take the new one.
func TestResizeUnderLoad(t *testing.T) {
	db, _, _ := settled(t, &dbsplit.Options{MaxConns: 2})
	ctx, cancel := context.WithCancel(within(t, 30*time.Second))
	defer cancel()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				var q queryRower = db
				if i%2 == 0 {
					q = db.Read()
				}
				if err := q.QueryRow(context.Background(), "select 1").Scan(nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 10 {
		must(t, db.Resize(ctx, int32(2+i%3)))
	}
	cancel()
	wg.Wait()
}
