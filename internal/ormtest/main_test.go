package ormtest

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

var shared = pgcluster.NewShared(&pgcluster.Options{Replicas: 1})

// gorm's cache of prepared statements has a goroutine that nobody can end.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(shared.Around(m), goleak.IgnoreTopFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"))
}

var readOnly = &sql.TxOptions{ReadOnly: true}

// mapper is what an ORM does with a table of notes.
type mapper struct {
	migrate func(ctx context.Context) error
	create  func(ctx context.Context, text string) error
	// read returns all notes, from a read-only transaction, and whether a replica answered.
	read func(ctx context.Context) (texts []string, replica bool, err error)
	// misplace creates a note in a read-only transaction.
	misplace func(ctx context.Context) error
}

// settled opens a database/sql handle over a DB with one replica, and waits until that is fresh.
func settled(t *testing.T) (*sql.DB, *pgcluster.Server) {
	t.Helper()
	c := shared.Get(t)
	database := c.Database(t)
	db, err := dbsplit.Open(t.Context(), dbsplit.Nodes{
		Primary: c.Primary().URL(database), Replicas: []string{c.Replica(0).URL(database)},
	}, &dbsplit.Options{MaxConns: 4})
	must(t, err)
	t.Cleanup(db.Close)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := db.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	await(t, "a fresh replica", func() bool {
		r := db.Nodes()[1]
		return r.Role == "replica" && r.Up && r.Staleness >= 0 && r.Staleness < 5*time.Second
	})
	sqlDB := sql.OpenDB(db.Connector())
	t.Cleanup(func() { must(t, sqlDB.Close()) })
	return sqlDB, c.Replica(0)
}

// conforms checks that the mapper's callers read their own writes, on a replica as soon as that has them, and nobody
// writes there.
func conforms(t *testing.T, replica *pgcluster.Server, m mapper) {
	t.Helper()
	must(t, m.migrate(within(t)))
	must(t, replica.WaitCaughtUp(within(t)))
	must(t, replica.PauseReplay(within(t)))
	resume := sync.OnceFunc(func() { must(t, replica.ResumeReplay(context.Background())) })
	t.Cleanup(resume)
	ctx, _ := scaleaware.WithWatermark(within(t))
	var want []string
	for _, text := range []string{"first", "it's the second"} {
		must(t, m.create(ctx, text))
		want = append(want, text)
		if texts, onReplica, err := m.read(ctx); err != nil || onReplica || !slices.Equal(texts, want) {
			t.Fatalf("who wrote %q reads %q, replica %v, %v", want, texts, onReplica, err)
		}
	}
	if texts, onReplica, err := m.read(within(t)); err != nil || !onReplica || len(texts) != 0 {
		t.Fatalf("others read %q, replica %v, %v: it is no test", texts, onReplica, err)
	}
	resume()
	await(t, "a replica to serve the writer", func() bool {
		texts, onReplica, err := m.read(ctx)
		if err != nil || !slices.Equal(texts, want) {
			t.Fatalf("who wrote %q reads %q, replica %v, %v", want, texts, onReplica, err)
		}
		return onReplica
	})
	if err := m.misplace(within(t)); !errors.Is(err, dbsplit.ErrWriteInRead) {
		t.Errorf("a write in a read-only transaction: %v", err)
	}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
