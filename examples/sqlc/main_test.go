package main

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/examples/sqlc/queries"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

var postgres = pgcluster.NewShared(&pgcluster.Options{Replicas: 1})

func TestMain(m *testing.M) { goleak.VerifyTestMain(postgres.Around(m)) }

func nodes(t *testing.T) dbsplit.Nodes {
	t.Helper()
	c := postgres.Get(t)
	database := c.Database(t)
	return dbsplit.Nodes{Primary: c.Primary().URL(database), Replicas: []string{c.Replica(0).URL(database)}}
}

func TestRun(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out, nodes(t)); err != nil || out.String() != "read back: written by sqlc\n" {
		t.Errorf("printed %q, %v", out.String(), err)
	}
}

func TestGeneratedCodeReadsItsOwnWritesWhileTheReplicaLags(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	db, err := dbsplit.Open(ctx, nodes(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	running, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { _ = db.Run(running) })
	defer func() { stop(); group.Wait() }()
	if err := db.InTx(ctx, func(tx pgx.Tx) error { _, err := tx.Exec(ctx, schema); return err }); err != nil {
		t.Fatal(err)
	}
	replica := postgres.Get(t).Replica(0)
	if err := replica.WaitCaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	stranger := ctx
	await(t, "the replica to serve", func() bool { return onReplica(stranger, t, db) })
	if err := replica.PauseReplay(ctx); err != nil {
		t.Fatal(err)
	}
	resume := sync.OnceFunc(func() {
		if err := replica.ResumeReplay(context.Background()); err != nil {
			t.Error(err)
		}
	})
	defer resume()

	writer, _ := scaleaware.WithWatermark(ctx)
	note, err := create(writer, db, "first")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := queries.New(db.Read()).GetNote(writer, note.ID); err != nil || got != note {
		t.Errorf("who wrote %v reads %v, %v", note, got, err)
	}
	if _, err := queries.New(db.Read()).GetNote(stranger, note.ID); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("others read it, too, %v: the replica does not lag, it is no test", err)
	}
	resume()
	await(t, "the replica to serve the writer", func() bool { return onReplica(writer, t, db) })
	notes, err := queries.New(db.Read()).ListNotes(writer, 10)
	if err != nil || len(notes) != 1 || notes[0] != note {
		t.Errorf("list %v, %v", notes, err)
	}
	if _, err := queries.New(db.Read()).CreateNote(writer, "misplaced"); !errors.Is(err, dbsplit.ErrWriteInRead) {
		t.Errorf("a write through db.Read(): %v", err)
	}
}

func onReplica(ctx context.Context, t *testing.T, db *dbsplit.DB) (is bool) {
	t.Helper()
	if err := db.Read().QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&is); err != nil {
		t.Fatal(err)
	}
	return is
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
