package lead

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// What is not urgent keeps off a database with few free connections to its primary, or with a replica that is far behind.
func TestDatabaseIsBusy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	postgres, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer postgres.Close()
	db, err := dbsplit.Open(ctx, dbsplit.Nodes{
		Primary: postgres.Primary().URL("postgres"), Replicas: []string{postgres.Replica(0).URL("postgres")},
	}, &dbsplit.Options{MaxConns: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var background sync.WaitGroup
	defer background.Wait()
	run, stop := context.WithCancel(ctx)
	defer stop()
	background.Go(func() { _ = db.Run(run) })

	s := &Service{db: db}
	busy := func(word string) func() bool {
		return func() bool {
			err := s.databaseBusy(ctx)
			bottleneck, _ := s.Bottleneck(ctx)
			return word == "" && err == nil && bottleneck == "" ||
				word != "" && err != nil && strings.Contains(err.Error(), word) && bottleneck == "database"
		}
	}
	eventually(t, ctx, "nothing is done, so it is not busy", busy(""))

	var txs []pgx.Tx
	for range 9 {
		tx, err := db.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		txs = append(txs, tx)
	}
	if !busy("9 of 10 connections")() {
		t.Errorf("with nine of ten connections in use: %v", s.databaseBusy(ctx))
	}
	for _, tx := range txs {
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if !busy("")() {
		t.Errorf("when they are given back: %v", s.databaseBusy(ctx))
	}

	if err := postgres.Replica(0).PauseReplay(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(ctx, "create table behind ()"); err != nil {
		t.Fatal(err)
	}
	eventually(t, ctx, "a replica is behind", busy("behind"))
	if err := postgres.Replica(0).ResumeReplay(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, ctx, "it has caught up", busy(""))
}

func eventually(t *testing.T, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}
