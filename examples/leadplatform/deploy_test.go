package main_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/examples/lead"
)

// An instance of a release whose migrations nobody has run does not end, and gets no requests: it says what it waits for.
func TestWaitsForTheSchema(t *testing.T) {
	pg, rd := ownPostgres.Get(t), ownRedis.Get(t)
	name := pg.Database(t)
	i := startAPI(t, pointTo(t, pg, rd, name)...)
	if got := i.status(t, i.admin+"/readyz"); got != http.StatusServiceUnavailable {
		t.Errorf("/readyz is %d without a schema", got)
	}
	eventually(t, 20*time.Second, "what is missing is told", func() bool {
		_, all := i.health(t)
		return strings.Contains(all, "00001_schema") && strings.Contains(all, "leadapi migrate up")
	})
	if err := lead.Migrate(t.Context(), pg.Primary().URL(name)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "ready by itself", func() bool { return i.status(t, i.admin+"/readyz") == http.StatusOK })
	if _, status := newClient(t, i.api, "first").create(i.api); status != http.StatusCreated {
		t.Errorf("create is %d", status)
	}
}

// An instance that is told to stop is unready at once, serves what still comes, lets what it has begun finish, and ends.
func TestStopsFromTheOutsideIn(t *testing.T) {
	pg, rd := ownPostgres.Get(t), ownRedis.Get(t)
	i := startAPI(t, append(environment(t, pg, rd), "DRAIN_DELAY=6s", "DRAIN_TIMEOUT=20s")...)
	c := newClient(t, i.api, "patient")
	c.http.Timeout = time.Minute // over all that follows
	eventually(t, 20*time.Second, "ready", func() bool { return i.status(t, i.admin+"/readyz") == http.StatusOK })

	// A request whose body is not all there, and a stream that never ends by itself.
	body, rest := io.Pipe()
	answered := make(chan int, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.api+"/api/v1/leads", body)
		if err != nil {
			t.Error(err)
		}
		resp, err := c.http.Do(req)
		if err != nil {
			t.Errorf("a request that had begun: %v", err)
			answered <- 0
			return
		}
		if resp.StatusCode != http.StatusCreated {
			why, _ := io.ReadAll(resp.Body)
			t.Logf("the request that had begun: %s", why)
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	stream, err := c.http.Get(i.api + "/api/v1/me/events")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	if _, err := io.WriteString(rest, `{"name": "Ada", `); err != nil {
		t.Fatal(err)
	}

	i.stop()
	eventually(t, 5*time.Second, "unready", func() bool { return i.status(t, i.admin+"/readyz") == http.StatusServiceUnavailable })
	if got := i.status(t, i.api+"/api/health"); got != http.StatusOK {
		t.Errorf("a request that comes after all is %d", got)
	}
	if _, err := io.ReadAll(stream.Body); err != nil { // it ends when the listener closes
		t.Errorf("the stream: %v", err)
	}
	if _, err := http.Get(i.api + "/api/health"); err == nil {
		t.Error("the listener still accepts")
	}
	if got := i.status(t, i.admin+"/livez"); got != http.StatusOK {
		t.Errorf("/livez is %d while requests finish", got)
	}
	select {
	case <-i.ended:
		t.Error("it has ended before the request that it had begun")
	default:
	}
	if _, err := io.WriteString(rest, `"email": "ada@example.com", "product": "home"}`); err != nil {
		t.Fatal(err)
	}
	rest.Close()
	if status := <-answered; status != http.StatusCreated {
		t.Errorf("the request that had begun is %d", status)
	}
	select {
	case <-i.ended:
	case <-time.After(30 * time.Second):
		t.Error("it does not end")
	}
}
