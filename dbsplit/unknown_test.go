package dbsplit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// instance is one process of a service: a DB and handlers behind a carrier.
func instance(t *testing.T, db *dbsplit.DB, afterWrite func()) string {
	t.Helper()
	signer, err := scaleaware.NewSigner([]string{"a secret of thirty-two characters"}, nil)
	must(t, err)
	carrier, err := scaleaware.NewCarrier(signer, &scaleaware.CarrierOptions{Insecure: true, PositionTimeout: 300 * time.Millisecond})
	must(t, err)
	verbs := http.NewServeMux()
	verbs.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		if _, err := db.Exec(r.Context(), "insert into notes values (1)"); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		afterWrite()
		w.WriteHeader(http.StatusCreated)
	})
	verbs.HandleFunc("/idle", func(http.ResponseWriter, *http.Request) {})
	verbs.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		var rows int
		var replica bool
		if err := db.Read().QueryRow(ctx, "select count(*)::int, pg_is_in_recovery() from notes").Scan(&rows, &replica); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		from := map[bool]string{true: "replica", false: "primary"}[replica]
		fmt.Fprintf(w, "%d from the %s", rows, from)
	})
	srv := httptest.NewServer(carrier.Middleware(verbs))
	t.Cleanup(srv.Close)
	return srv.URL
}

// The primary falls silent right after a commit, before its position can be asked for, and the replica has not replayed
// it. The client's next requests, on any instance, find the write or fail.
func TestWriteWhosePositionIsUnknown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		silence func(*pgcluster.Server)
		heal    func(context.Context, *pgcluster.Server) error
	}{
		"frozen": {(*pgcluster.Server).Freeze, func(_ context.Context, s *pgcluster.Server) error { s.Thaw(); return nil }},
		"killed": {(*pgcluster.Server).Kill, func(ctx context.Context, s *pgcluster.Server) error { return s.Start(ctx) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unknownPosition(t, c.silence, c.heal)
		})
	}
}

func unknownPosition(t *testing.T, silence func(*pgcluster.Server), heal func(context.Context, *pgcluster.Server) error) {
	ctx := within(t, 60*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	nodes, reg := nodesOf(c, "postgres"), prometheus.NewRegistry()
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	// Its monitor does not happen to see the primary between the commit and the silence.
	proxy, primary := proxied(t, c.Primary(), "postgres")
	near := run(t, dbsplit.Nodes{Primary: primary, Replicas: nodes.Replicas}, &dbsplit.Options{ProbeTimeout: 20 * time.Second, ProbeInterval: time.Hour})
	far := run(t, nodes, &dbsplit.Options{ProbeTimeout: 500 * time.Millisecond, Registerer: reg})
	for _, db := range []*dbsplit.DB{near, far} {
		await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	}
	notes(t, near)
	resume := pause(t, c)

	writer := instance(t, near, func() {
		proxy.Blackhole(faultconn.ToServer) // a server that is being killed may answer one last probe
		silence(c.Primary())
	})
	reader := instance(t, far, nil)
	t.Cleanup(c.Primary().Thaw)
	jar, err := cookiejar.New(nil)
	must(t, err)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	browser := &http.Client{Jar: jar, Transport: transport}
	call := func(url string) (code int, body string, cookies int) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		must(t, err)
		resp, err := browser.Do(r)
		must(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp.StatusCode, string(b), len(resp.Cookies())
	}
	if code, body, cookies := call(writer + "/write"); code != http.StatusCreated || cookies != 1 {
		t.Fatalf("the write was answered with %d %q and %d cookies", code, body, cookies)
	}
	begunLate := run(t, nodes, &dbsplit.Options{ProbeTimeout: 500 * time.Millisecond}) // has never seen the primary
	late := instance(t, begunLate, nil)
	await(t, begunLate, "its replica", func() bool { return probed(begunLate, 0) && begunLate.Nodes()[1].Up })
	if got, want := begunLate.System(), far.System(); got != want {
		t.Errorf("without the primary system %d, want %d", got, want)
	}
	for range 2 {
		for _, url := range []string{reader, late} {
			if code, body, _ := call(url + "/read"); code == http.StatusOK {
				t.Fatalf("the client that wrote was told: %s", body)
			}
		}
	}
	if n := get[int](t, ctx, far.Read(), "select count(*)::int from notes"); n != 0 {
		t.Fatalf("the replica has %d rows: it is no test", n)
	}

	must(t, heal(ctx, c.Primary()))
	learned := 0
	await(t, far, "the read", func() bool {
		code, body, cookies := call(reader + "/read")
		if code == http.StatusOK && body != "1 from the primary" {
			t.Fatalf("the client that wrote was told: %s", body)
		}
		learned += cookies // it may be, while the monitor has not seen the primary again
		return code == http.StatusOK && learned > 0
	})
	asked := counter(t, reg, "db_tokens_total", "outcome", "captured")
	for range 5 {
		if code, body, cookies := call(reader + "/read"); code != http.StatusOK || body != "1 from the primary" || cookies != 0 {
			t.Errorf("after that: %d %s, with %d cookies", code, body, cookies)
		}
	}
	if more := counter(t, reg, "db_tokens_total", "outcome", "captured") - asked; more != 0 {
		t.Errorf("the position was asked for %v times more", more)
	}
	if n := counter(t, reg, "db_tokens_total", "outcome", "settled"); n != 1 {
		t.Errorf("settled %v times", n)
	}
	resume()
	await(t, far, "the replica to serve the client", func() bool {
		_, body, _ := call(reader + "/read")
		return body == "1 from the replica"
	})
	await(t, begunLate, "the other instance", func() bool {
		code, body, _ := call(late + "/read")
		if code == http.StatusOK && body[0] != '1' {
			t.Fatalf("the other instance: %s", body)
		}
		return code == http.StatusOK
	})
}

// absent is a database that does not answer.
type absent struct {
	system uint64
	asked  int
}

func (a *absent) Position(context.Context) (scaleaware.Token, error) {
	a.asked++
	return scaleaware.Token{}, errors.New("it is down")
}

func (a *absent) System() uint64 { return a.system }

// Another database of the same unit of work is down: the reads of this one go where they would, and do not wait for it.
func TestAnotherDatabaseIsDown(t *testing.T) {
	for _, opts := range []*dbsplit.Options{{}, {MonotonicReads: true}} {
		db, _, _ := settled(t, opts)
		ctx, w := scaleaware.WithWatermark(within(t, 30*time.Second))
		exec(t, db, "create table notes (n int)")
		exec(t, watched{db, ctx}, "insert into notes values (1)")
		other := &absent{system: db.System() + 1}
		w.RaiseFrom(other)
		read := func(opts ...dbsplit.ReadOption) {
			t.Helper()
			var at string
			opts = append(opts, dbsplit.WaitForReplica(10*time.Second), dbsplit.OnRoute(func(p dbsplit.Provenance) { at = p.Role }))
			if n := get[int](t, ctx, db.Read(opts...), "select count(*)::int from notes"); n != 1 || at != "replica" {
				t.Errorf("%+v: %d rows on the %s", opts, n, at)
			}
		}
		read()
		asked := other.asked
		read(dbsplit.FallBack(dbsplit.FallbackStale))
		read()
		if other.asked != asked {
			t.Errorf("it was asked %d times for reads of a database whose position is known", other.asked-asked)
		}
		if _, err := w.Written(ctx); err == nil {
			t.Error("its position is taken for known")
		}
		w.RaiseFrom(&absent{}) // which may be of this cluster
		if at := served(t, ctx, db.Read()); at != "primary" {
			t.Errorf("after a write that may be this cluster's, at an unknown position, served by the %s", at)
		}
	}
}

// A read whose caller has gone says nothing about the position of a write.
func TestPositionOfACallerWhoHasGone(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	c := shared.Get(t)
	db := run(t, nodesOf(c, c.Database(t)), &dbsplit.Options{Registerer: reg, ProbeInterval: time.Hour})
	await(t, db, "fresh replicas", func() bool { db.Look(); return fresh(db) == 2 })
	exec(t, db, "create table notes (n int)")
	ctx, _ := scaleaware.WithWatermark(within(t, 20*time.Second))
	exec(t, watched{db, ctx}, "insert into notes values (1)")
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := db.Read().QueryRow(gone, "select 1").Scan(nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := counter(t, reg, "db_tokens_total", "outcome", "unknown"); n != 0 {
		t.Errorf("%v positions are counted as unknown", n)
	}
	get[int](t, ctx, db.Read(), "select 1")
}
