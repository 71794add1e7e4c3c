package pgstore_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/pgstore"
	"github.com/scaleaware/scaleaware/readonly/storetest"
)

var shared = pgcluster.NewShared(nil)

func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Around(m)) }

func connect(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func migrated(t *testing.T, db pgstore.Database, o *pgstore.Options) *pgstore.Store {
	t.Helper()
	s, err := pgstore.New(db, o)
	if err == nil {
		err = s.Migrate(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() readonly.Store {
		c := shared.Get(t)
		pool := connect(t, c.Primary().URL(c.Database(t)))
		migrated(t, pool, nil) // twice must do no harm
		return func() readonly.Store { return migrated(t, pool, &pgstore.Options{Poll: 20 * time.Millisecond}) }
	})
}

func TestNamesDoNotMeet(t *testing.T) {
	c := shared.Get(t)
	pool := connect(t, c.Primary().URL(c.Database(t)))
	a, b := migrated(t, pool, &pgstore.Options{Name: "a"}), migrated(t, pool, &pgstore.Options{Name: "b"})
	if _, err := a.Save(t.Context(), readonly.State{Epoch: 3, Enabled: true}); err != nil {
		t.Fatal(err)
	}
	if err := a.Acknowledge(t.Context(), "one", readonly.Ack{}, time.Minute); err != nil {
		t.Fatal(err)
	}
	state, err1 := b.Load(t.Context())
	acks, err2 := b.Acknowledged(t.Context())
	if err1 != nil || err2 != nil || state.Epoch != 0 || len(acks) != 0 {
		t.Fatalf("%+v %v, %v %v", state, err1, acks, err2)
	}
}

// A server that an operator has made read-only must still take the end of the mode.
func TestServerThatIsReadOnlyByDefault(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	migrated(t, connect(t, c.Primary().URL(database)), nil)
	s, err := pgstore.New(connect(t, c.Primary().URL(database)+"&default_transaction_read_only=on"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Save(t.Context(), readonly.State{Epoch: 1}); err != nil || got.Epoch != 1 {
		t.Fatalf("Save = %+v, %v", got, err)
	}
}

// The database's gate is the switch whose state it keeps: the mode can be ended all the same.
func TestStoreOnTheDatabaseThatItCloses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := shared.Get(t)
	url := c.Primary().URL(c.Database(t))
	migrated(t, connect(t, url), nil)
	gate := &lateGate{}
	db, err := dbsplit.Open(ctx, dbsplit.Nodes{Primary: url}, &dbsplit.Options{Gate: gate})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := pgstore.New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	if gate.Switch, err = readonly.New(s, &readonly.Options{Poll: 50 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- gate.Run(running) }()
	defer func() { stop(); <-done }()
	for range 2 {
		if report, err := gate.Enable(ctx, readonly.Change{}); err != nil || !report.Enabled {
			t.Fatalf("Enable = %+v, %v", report, err)
		}
		if _, err := db.Exec(ctx, "create table t ()"); err == nil {
			t.Fatal("a write passed the gate")
		}
		if report, err := gate.Disable(ctx, "me"); err != nil || report.Enabled {
			t.Fatalf("Disable = %+v, %v", report, err)
		}
		if _, err := db.Exec(ctx, "select 1"); err != nil {
			t.Fatal(err)
		}
	}
}

type lateGate struct{ *readonly.Switch }

func TestMistakesAreNamed(t *testing.T) {
	_, err := pgstore.New(nil, &pgstore.Options{Name: strings.Repeat("n", 101), Poll: -1})
	for _, what := range []string{"a database", "Options.Name", "Options.Poll"} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s is not named: %v", what, err)
		}
	}
	c := shared.Get(t)
	s, err := pgstore.New(connect(t, c.Primary().URL(c.Database(t))), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "Migrate") {
		t.Errorf("without its tables: %v", err)
	}
}
