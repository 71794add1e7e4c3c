package main_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// instance is one API process, without the platform around it.
type instance struct {
	api, admin string
	stop       func() // asks it to stop, as an orchestrator does
	ended      <-chan struct{}
}

// startAPI runs leadapi until the test ends.
func startAPI(t *testing.T, environment ...string) instance {
	t.Helper()
	ready, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	var output lockedBuffer
	cmd := exec.Command(apiBinary)
	cmd.Env = append(os.Environ(), lead.ChildVariable+"=1", "DRAIN_DELAY=0s", "PORT=0", "ADMIN_ADDR=127.0.0.1:0", "SESSION_SECRET="+strings.Repeat("s", 32), "PLAIN_HTTP=true")
	cmd.Env = append(cmd.Env, environment...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &output, &output, []*os.File{writer}
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Start()
	writer.Close()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	stop := func() { _ = cmd.Process.Signal(syscall.SIGTERM) }
	go func() {
		defer close(ended)
		err = cmd.Wait()
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		if err != nil {
			t.Errorf("the instance ended with %v", err)
		}
		lifeline.Close()
		if t.Failed() {
			t.Logf("output of the instance:\n%s", output.String())
		}
	})
	var at struct{ API, Admin string }
	if err := json.NewDecoder(ready).Decode(&at); err != nil {
		t.Fatalf("the instance did not start: %v\n%s", err, output.String())
	}
	return instance{api: "http://" + at.API, admin: "http://" + at.Admin, stop: stop, ended: ended}
}

// health returns the status and the whole answer of /health.
func (i instance) health(t *testing.T) (status, all string) {
	t.Helper()
	_, _, blob := send(t, "GET", i.admin+"/health", "")
	var reply struct{ Status string }
	if err := json.Unmarshal(blob, &reply); err != nil {
		t.Fatalf("health: %s: %v", blob, err)
	}
	return reply.Status, string(blob)
}

func (i instance) status(t *testing.T, url string) int {
	t.Helper()
	status, _, _ := send(t, "GET", url, "")
	return status
}

var (
	ownPostgres = pgcluster.NewShared(&pgcluster.Options{Replicas: 1})
	ownRedis    = rediscluster.NewShared(&rediscluster.Options{Nodes: 1})
)

// environment prepares a database and returns what points an instance to it.
func environment(t *testing.T, pg *pgcluster.Cluster, rd *rediscluster.Cluster) []string {
	t.Helper()
	name := pg.Database(t)
	if err := lead.Migrate(t.Context(), pg.Primary().URL(name)); err != nil {
		t.Fatal(err)
	}
	return pointTo(t, pg, rd, name)
}

func pointTo(t *testing.T, pg *pgcluster.Cluster, rd *rediscluster.Cluster, name string) []string {
	t.Helper()
	if err := pg.Replica(0).WaitCaughtUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	return []string{
		"DATABASE_URL_PRIMARY=" + pg.Primary().URL(name), "DATABASE_URL_REPLICA=" + pg.Replica(0).URL(name), "REDIS_ADDRS=" + strings.Join(rd.Addrs(), ","),
	}
}

func TestStartsWithoutRedisAndReplica(t *testing.T) {
	pg, rd := ownPostgres.Get(t), ownRedis.Get(t)
	vars := environment(t, pg, rd)
	rd.Nodes()[0].Kill()
	if err := pg.Replica(0).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	i := startAPI(t, vars...)
	if got := i.status(t, i.admin+"/livez"); got != http.StatusOK {
		t.Errorf("/livez is %d", got)
	}
	if got := i.status(t, i.api+"/api/v1/leads"); got != http.StatusOK {
		t.Errorf("a read is %d: the primary could have answered", got)
	}
	if status, all := i.health(t); status == "ok" || !strings.Contains(all, "sessions") {
		t.Errorf("/health does not say what is degraded: %s", all)
	}
	if err := rd.Nodes()[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := pg.Replica(0).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var all string
	eventually(t, 30*time.Second, "healed by itself", func() bool {
		var status string
		status, all = i.health(t)
		return status == "ok"
	})
	c := newClient(t, i.api, "late")
	if _, status := c.create(i.api); status != http.StatusCreated {
		t.Errorf("create after healing is %d; health: %s", status, all)
	}
}

func TestStartsWithoutPrimary(t *testing.T) {
	pg, rd := ownPostgres.Get(t), ownRedis.Get(t)
	vars := environment(t, pg, rd)
	if err := pg.Primary().Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	i := startAPI(t, vars...)
	if got := i.status(t, i.admin+"/readyz"); got != http.StatusServiceUnavailable {
		t.Errorf("/readyz is %d without a primary", got)
	}
	eventually(t, 20*time.Second, "reads work on the replica", func() bool { return i.status(t, i.api+"/api/v1/leads") == http.StatusOK })
	c := newClient(t, i.api, "early")
	if _, status := c.create(i.api); status != http.StatusServiceUnavailable {
		t.Errorf("create without a primary is %d", status)
	}
	if err := pg.Primary().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "ready by itself", func() bool { return i.status(t, i.admin+"/readyz") == http.StatusOK })
	if _, status := c.create(i.api); status != http.StatusCreated {
		t.Errorf("create after healing is %d", status)
	}
}
