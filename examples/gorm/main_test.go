package main

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"gorm.io/gorm"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

var shared = pgcluster.NewShared(&pgcluster.Options{Replicas: 1})

// gorm's cache of prepared statements has a goroutine that nobody can end; the handles live as long as the process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(shared.Around(m), goleak.IgnoreTopFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"),
		goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

func nodes(t *testing.T) dbsplit.Nodes {
	t.Helper()
	c := shared.Get(t)
	database := c.Database(t)
	return dbsplit.Nodes{Primary: c.Primary().URL(database), Replicas: []string{c.Replica(0).URL(database)}}
}

func TestRun(t *testing.T) {
	var out bytes.Buffer
	want := "read back: written by gorm\nin read-only mode, refused: true\n"
	if err := run(t.Context(), &out, nodes(t)); err != nil || out.String() != want {
		t.Errorf("printed %q, %v", out.String(), err)
	}
}

func TestTheReadingHandleFollowsItsCaller(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	db, err := dbsplit.Open(ctx, nodes(t), nil)
	must(t, err)
	defer db.Close()
	running, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { _ = db.Run(running) })
	defer func() { stop(); group.Wait() }()
	writes, reads, err := handles(db)
	must(t, err)
	must(t, writes.WithContext(ctx).AutoMigrate(&Note{}))
	replica := shared.Get(t).Replica(0)
	must(t, replica.WaitCaughtUp(ctx))
	stranger := ctx
	await(t, "the replica to serve", func() bool { return onReplica(stranger, t, reads) })
	must(t, replica.PauseReplay(ctx))
	resume := sync.OnceFunc(func() { must(t, replica.ResumeReplay(context.Background())) })
	defer resume()

	writer, _ := scaleaware.WithWatermark(ctx)
	note := Note{Body: "first"}
	must(t, writes.WithContext(writer).Create(&note).Error)
	var got Note
	if err := reads.WithContext(writer).First(&got, note.ID).Error; err != nil || got.Body != "first" {
		t.Errorf("who wrote it reads %+v, %v", got, err)
	}
	if err := reads.WithContext(stranger).First(&Note{}, note.ID).Error; !errors.Is(err, gorm.ErrRecordNotFound) {
		t.Errorf("others read it, too, %v: the replica does not lag, it is no test", err)
	}
	resume()
	await(t, "the replica to serve the writer", func() bool { return onReplica(writer, t, reads) })
	must(t, reads.WithContext(writer).First(&Note{}, note.ID).Error)
	if onReplica(writer, t, writes) {
		t.Error("the writing handle reads on a replica")
	}
	if err := reads.WithContext(writer).Create(&Note{Body: "misplaced"}).Error; !errors.Is(err, dbsplit.ErrWriteInRead) {
		t.Errorf("a write through the reading handle: %v", err)
	}
}

func onReplica(ctx context.Context, t *testing.T, handle *gorm.DB) (is bool) {
	t.Helper()
	must(t, handle.WithContext(ctx).Raw("SELECT pg_is_in_recovery()").Scan(&is).Error)
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
