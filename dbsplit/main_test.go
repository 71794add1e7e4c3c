package dbsplit_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// shared serves all tests but those that promote. Tests that stop, pause or cut off its servers, and those that need it
// quiet, are not parallel, so they run before the parallel ones and alone.
var shared = pgcluster.NewShared(&pgcluster.Options{Replicas: 2, Settings: map[string]string{"max_prepared_transactions": "10"}})

func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Around(m)) }

// nodesOf names a cluster's servers.
func nodesOf(c *pgcluster.Cluster, database string) dbsplit.Nodes {
	var nodes dbsplit.Nodes
	for i, s := range c.Servers() {
		if i == 0 {
			nodes.Primary = s.URL(database)
		} else {
			nodes.Replicas = append(nodes.Replicas, s.URL(database))
		}
	}
	return nodes
}

// open opens a DB, and closes it when the test ends.
func open(t testing.TB, nodes dbsplit.Nodes, opts *dbsplit.Options) *dbsplit.DB {
	t.Helper()
	db, err := dbsplit.Open(t.Context(), nodes, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// run opens a DB and runs its monitor until the test ends.
func run(t testing.TB, nodes dbsplit.Nodes, opts *dbsplit.Options) *dbsplit.DB {
	t.Helper()
	db := open(t, nodes, opts)
	t.Cleanup(start(t, db))
	return db
}

// start runs a DB's monitor until stop is called.
func start(t testing.TB, db *dbsplit.DB) (stop func()) {
	t.Helper()
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		if err := db.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return func() { cancel(); wg.Wait() }
}

// settled runs a DB on the shared cluster and returns it when both replicas are fresh.
func settled(t testing.TB, opts *dbsplit.Options) (*dbsplit.DB, *pgcluster.Cluster, string) {
	t.Helper()
	c := shared.Get(t)
	database := c.Database(t)
	db := run(t, nodesOf(c, database), opts)
	await(t, db, "fresh replicas", func() bool { return fresh(db) == len(c.Servers())-1 })
	return db, c, database
}

func fresh(db *dbsplit.DB) int {
	n := 0
	for _, s := range db.Nodes() {
		if s.Role == "replica" && s.Up && s.Staleness >= 0 && s.Staleness < 5*time.Second {
			n++
		}
	}
	return n
}

// probed reports whether a node has been probed, with whatever result.
func probed(db *dbsplit.DB, node int) bool {
	advice := db.Nodes()[node].Advice
	return advice != "not probed yet" && !strings.Contains(advice, "not running")
}

// await polls until a condition holds.
func await(t testing.TB, db *dbsplit.DB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s: %+v", what, db.Nodes())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exec(t testing.TB, db pgExec, sql string, args ...any) {
	t.Helper()
	if _, err := db.Exec(within(t, 10*time.Second), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

type pgExec interface {
	Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error)
}

type queryRower interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func get[T any](t testing.TB, ctx context.Context, db queryRower, sql string, args ...any) (v T) {
	t.Helper()
	if err := db.QueryRow(ctx, sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// served names the server that answers: primary, replica1 or replica2.
func served(t testing.TB, ctx context.Context, db queryRower) string {
	t.Helper()
	return get[string](t, ctx, db, "select case when pg_is_in_recovery() then 'replica' else 'primary' end")
}

// counter sums a counter's series that have the label values given, in pairs.
func counter(t testing.TB, reg *prometheus.Registry, name string, labels ...string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	must(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !found {
					continue series
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// gate refuses writes while it holds an error.
type gate struct {
	mu  sync.Mutex
	err error
}

var errMaintenance = errors.New("maintenance")

func (g *gate) AllowWrite(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

func (g *gate) set(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
}
