package main_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPlatform drives the program from outside, as its users do. The parts build on one running platform, in order.
func TestPlatform(t *testing.T) {
	p := start(t, "-rate", "10", "-clients", "4")
	t.Run("a client reads its own writes on every instance", func(t *testing.T) { readYourWrites(t, p) })
	t.Run("a person sees and ends its log-ins", func(t *testing.T) { devices(t, p) })
	t.Run("bad input changes nothing", func(t *testing.T) { badInput(t, p) })
	t.Run("read-only mode holds on every instance", func(t *testing.T) { readOnlyMode(t, p) })
	t.Run("every curl of the runbook works", func(t *testing.T) { runbook(t, p) })
	t.Run("every operation of the contract answers", func(t *testing.T) { everyOperation(t, p) })
	t.Run("faults under load lose nothing", func(t *testing.T) { faults(t, p) })
	t.Run("an interrupt leaves nothing behind", func(t *testing.T) { cleanExit(t, p) })
}

// readYourWrites: 400 leads, each read at once on the next instance, with replay paused half of the time. An answer
// of 5xx is no stale one, and a client tries again; that happens where the machine is too busy to reach Redis in time.
func readYourWrites(t *testing.T, p *platform) {
	const writes, period = 400, 40
	s := p.state(t)
	apis := s.APIs()
	c := newClient(t, apis[0], "ryw")
	defer pauseReplay(t, s, false)
	replicasBefore, allBefore := reads(t, p)
	busy := 0
	patiently := func(what string, want int, try func() int) bool {
		for range 20 {
			status := try()
			if status == want {
				return true
			}
			if status/100 != 5 {
				t.Errorf("%s: status %d", what, status)
				return false
			}
			busy++
		}
		t.Fatalf("%s: 20 times busy", what)
		return false
	}
	for n := range writes {
		if n%period == 0 {
			pauseReplay(t, s, n/period%2 == 1)
		}
		here, there := apis[n%len(apis)], apis[(n+1)%len(apis)]
		var created, got seenLead
		patiently("create", http.StatusCreated, func() (status int) { created, status = c.create(here); return status })
		patiently("read at once", http.StatusOK, func() (status int) { got, status = c.get(there, created.ID); return status })
		if n%10 != 0 {
			continue
		}
		// An update must be seen as well, although the cache has the lead now.
		patiently("update", http.StatusOK, func() int {
			status, _ := c.do("PUT", there+"/api/v1/leads/"+created.ID, map[string]string{"product": "life"})
			return status
		})
		patiently("read at once after an update", http.StatusOK, func() (status int) { got, status = c.get(here, created.ID); return status })
		if got.Product != "life" {
			t.Errorf("lead %d: updated to life, read back as %q", n, got.Product)
		}
	}
	replicas, all := reads(t, p)
	replicas, all = replicas-replicasBefore, all-allBefore
	t.Logf("%.0f of %.0f reads were served by replicas, %d answers were 5xx", replicas, all, busy)
	if replicas < writes/4 { // half of the time none can have what was just written
		t.Error("too few reads were served by replicas: the test proves nothing")
	}
	if busy > writes/20 {
		t.Errorf("%d answers of 5xx are too many for a busy machine alone", busy)
	}
}

func badInput(t *testing.T, p *platform) {
	s := p.state(t)
	c := newClient(t, s.API, "clumsy")
	before := query(t, s.Primary, `SELECT count(*)::text FROM "Lead" WHERE email LIKE 'clumsy%'`)
	for _, body := range []any{
		"not an object", map[string]string{"name": "x"}, map[string]string{"name": "x", "email": "clumsy@example.com", "product": "home", "admin": "true"},
		map[string]string{"name": strings.Repeat("x", 1<<20), "email": "clumsy@example.com", "product": "home"},
	} {
		if status, reply := c.do("POST", s.API+"/api/v1/leads", body); status/100 != 4 || !strings.Contains(string(reply), "detail") {
			t.Errorf("status %d: %.100s", status, reply)
		}
	}
	if after := query(t, s.Primary, `SELECT count(*)::text FROM "Lead" WHERE email LIKE 'clumsy%'`); after != before {
		t.Errorf("%s leads before, %s after", before, after)
	}
	for _, c := range []struct {
		method, path, body, names string
		want                      int
	}{
		{"POST", "/api/v1/performance/jobs/no-such-queue/pause", "", "no-such-queue", 404},
		{"GET", "/api/v1/performance/jobs/no-such-queue", "", "no-such-queue", 404},
		{"POST", "/api/v1/performance/database/optimize-table/NoSuchTable", "", "NoSuchTable", 404},
		{"POST", "/api/v1/performance/cache/invalidate", "{", "", 400},
		{"POST", "/api/v1/performance/cache/invalidate", `{"patern":"*"}`, "patern", 400},
		{"POST", "/api/v1/performance/cache/invalidate", `{"pattern":"` + strings.Repeat("x", 1<<20) + `"}`, "", 413},
		{"POST", "/api/v1/admin/read-only-mode", `{"until":"2001-01-01T00:00:00Z"}`, "until", 400},
		{"GET", "/api/v1/nothing", "", "", 404},
	} {
		status, header, reply := send(t, c.method, s.Admin+c.path, c.body)
		if status != c.want || header.Get("Content-Type") != "application/problem+json" || !strings.Contains(string(reply), c.names) {
			t.Errorf("%s %s: %d %.200s, want %d naming %q", c.method, c.path, status, reply, c.want, c.names)
		}
	}
}

func readOnlyMode(t *testing.T, p *platform) {
	s := p.state(t)
	c := newClient(t, s.API, "writer")
	kept, status := c.create(s.API)
	if status != http.StatusCreated {
		t.Fatalf("create: %d", status)
	}
	type report struct {
		Enabled                 bool
		Phase                   string
		Instances, Acknowledged int
	}
	on := call[report](t, "POST", s.Admin+"/api/v1/admin/read-only-mode", `{"reason":"test"}`)
	for began := time.Now(); on.Phase != "held" && time.Since(began) < 20*time.Second; { // its jobs and transactions end first
		on = call[report](t, "GET", s.Admin+"/api/v1/admin/read-only-mode", "")
	}
	if on.Phase != "held" {
		_, _, text := send(t, "GET", s.Admin+"/api/v1/admin/read-only-mode", "")
		t.Fatalf("what was in flight does not end: %s", text)
	}
	if !on.Enabled || on.Instances != 6 || on.Acknowledged != 6 {
		t.Fatalf("enable: %+v; want three API instances, two workers and the platform itself", on)
	}
	count := func() string { return query(t, s.Primary, `SELECT count(*)::text FROM "Lead"`) }
	before := count()
	for _, api := range s.APIs() {
		for range 20 {
			if _, status := c.create(api); status != http.StatusServiceUnavailable {
				t.Errorf("%s: create in read-only mode is %d", api, status)
			}
			if status, _ := c.do("PUT", api+"/api/v1/leads/"+kept.ID, map[string]string{"product": "auto"}); status != http.StatusServiceUnavailable {
				t.Errorf("%s: update in read-only mode is %d", api, status)
			}
			if _, status := c.get(api, kept.ID); status != http.StatusOK {
				t.Errorf("%s: a read in read-only mode is %d", api, status)
			}
		}
		// Sessions live in Redis, not in the database: people can still log in.
		newClient(t, api, "late")
	}
	if after := count(); after != before {
		t.Errorf("%s leads when read-only mode began, %s when it ended", before, after)
	}
	off := call[report](t, "DELETE", s.Admin+"/api/v1/admin/read-only-mode", "")
	if off.Enabled || off.Acknowledged != 6 {
		t.Fatalf("disable: %+v", off)
	}
	for _, api := range s.APIs() {
		if _, status := c.create(api); status != http.StatusCreated {
			t.Errorf("%s: create after read-only mode is %d", api, status)
		}
	}
}

// faults kills one of each kind under load and then counts what was promised.
func faults(t *testing.T, p *platform) {
	s := p.state(t)
	load := startLoad(t, s.API, 6)
	under := func(fault string, inject func()) {
		began := load.count()
		inject()
		eventually(t, 60*time.Second, "60 more leads are acknowledged after: "+fault, func() bool { return load.count() >= began+60 })
		t.Logf("%s: %d leads acknowledged, %d attempts refused or unanswered so far", fault, load.count(), load.failed.Load())
	}
	api, worker := pidOf(t, s, "api-2"), pidOf(t, s, "worker-1")
	under("no fault", func() {})
	under("one API instance killed", func() { kill(t, api) })
	under("one worker killed", func() { kill(t, worker) })
	under("one replica killed", func() { kill(t, postmaster(t, s.Replicas[1])) })
	under("the Redis master of the jobs killed", func() { killRedisMaster(t, s, "asynq:{lead-processing}:pending") })
	acknowledged := load.stop()

	stored := query(t, s.Primary, `SELECT count(*)::text FROM "Lead" WHERE id = ANY($1::uuid[])`, acknowledged)
	if stored != itoa(len(acknowledged)) {
		t.Errorf("%d leads were acknowledged, %s are there", len(acknowledged), stored)
	}
	// Each lead's job came with its transaction; a lead without a score is a lost job.
	eventually(t, 90*time.Second, "every lead is scored", func() bool {
		return query(t, s.Primary, `SELECT count(*)::text FROM "Lead" WHERE score IS NULL AND email NOT LIKE 'lead%'`) == "0"
	})
	// The other job of each lead, on another queue and so on another Redis server, leaves an event.
	eventually(t, 90*time.Second, "an agent is notified of every lead", func() bool {
		return query(t, s.Primary, `SELECT count(*)::text FROM "Lead" l WHERE id = ANY($1::uuid[]) AND NOT EXISTS (
			SELECT FROM "Event" e WHERE e."entityId" = l.id AND e.kind = 'notified')`, acknowledged) == "0"
	})
	eventually(t, 30*time.Second, "what was killed runs again", func() bool {
		now := p.state(t)
		return now.Up() && pidOf(t, now, "api-2") != api && pidOf(t, now, "worker-1") != worker
	})
	for _, base := range p.state(t).APIs() {
		for _, c := range load.clients {
			if status, body := c.do("GET", base+"/api/v1/me", nil); status != http.StatusOK || !strings.Contains(string(body), `"`+c.user+`"`) {
				t.Errorf("%s: %s was logged out by the faults: %d %s", base, c.user, status, body)
			}
		}
	}
}

func cleanExit(t *testing.T, p *platform) {
	s := p.state(t)
	pids := []int{postmaster(t, s.Primary), postmaster(t, s.Replicas[0])}
	directories := []string{query(t, s.Primary, "SHOW data_directory")}
	for _, process := range s.Processes {
		pids = append(pids, process.PID)
	}
	for _, addr := range s.Redis {
		if pid, directory, ok := redisProcess(t, addr); ok { // one was killed
			pids, directories = append(pids, pid), append(directories, directory)
		}
	}
	if len(pids) != 2+5+5 {
		t.Errorf("%d processes are known, want 12", len(pids))
	}
	p.signal(syscall.SIGINT)
	select {
	case <-p.done:
	case <-time.After(60 * time.Second):
		t.Fatal("still running a minute after the interrupt")
	}
	if p.err != nil {
		t.Errorf("exit: %v", p.err)
	}
	for _, pid := range pids {
		if !gone(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	for _, directory := range directories {
		if _, err := os.Stat(directory); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", directory, err)
		}
	}
}

// TestGuardedPlatform attacks a platform that wants a token, and kills the program in a way that no handler can see.
func TestGuardedPlatform(t *testing.T) {
	token := strings.Repeat("correct-horse-", 3)
	t.Setenv("ADMIN_TOKEN", token)
	p := start(t, "-rate", "0")
	t.Run("strangers get nothing", func(t *testing.T) { strangersGetNothing(t, p, token) })
	t.Run("killed, it leaves nothing behind", func(t *testing.T) { killedLeavesNothing(t, p) })
}

func killedLeavesNothing(t *testing.T, p *platform) {
	s := p.state(t)
	pids := []int{postmaster(t, s.Primary)}
	for _, process := range s.Processes {
		pids = append(pids, process.PID)
	}
	for _, addr := range s.Redis {
		pids = append(pids, redisPID(t, addr))
	}
	directory := query(t, s.Primary, "SHOW data_directory")
	p.signal(syscall.SIGKILL)
	<-p.done
	eventually(t, 60*time.Second, fmt.Sprintf("processes %v and %s gone", pids, directory), func() bool {
		for _, pid := range pids {
			if !gone(pid) {
				return false
			}
		}
		_, err := os.Stat(directory)
		return os.IsNotExist(err)
	})
}
