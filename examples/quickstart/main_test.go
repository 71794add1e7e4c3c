package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

var (
	postgres = pgcluster.NewShared(&pgcluster.Options{Replicas: 1})
	redis    = rediscluster.NewShared(&rediscluster.Options{Nodes: 1})
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(postgres.Around(redis.Around(m))) }

func TestQuickstart(t *testing.T) {
	pg := postgres.Get(t)
	database := pg.Database(t)
	t.Setenv("DATABASE_URL_PRIMARY", pg.Primary().URL(database))
	t.Setenv("DATABASE_URL_REPLICA", pg.Replica(0).URL(database))
	t.Setenv("REDIS_ADDRS", strings.Join(redis.Get(t).Addrs(), ","))
	if got := printed(t, func() error { return run(t.Context()) }); got != "read back: written\n" {
		t.Fatalf("printed %q", got)
	}
}

func printed(t *testing.T, run func() error) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = w
	err = run()
	os.Stdout = stdout
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
