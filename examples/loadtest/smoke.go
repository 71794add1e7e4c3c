package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/scaleaware/scaleaware/metrics"
)

// smoke checks, one after the other, what users and operators need. It leaves one lead behind, by the name "smoke test",
// and changes no switch: a test that turned read-only mode on would be the outage that it looks for.
func smoke(ctx context.Context, out io.Writer, at Place, _ []string) error {
	return smokeWithin(ctx, out, at, 30*time.Second)
}

// smokeWithin says how long a job may take from the transaction that enqueued it to its result.
func smokeWithin(ctx context.Context, out io.Writer, at Place, score time.Duration) error {
	if at.Target == "" {
		at.Target = "http://localhost:3000"
	}
	if at.Admin == "" {
		at.Admin = "http://localhost:3002"
	}
	s, err := newSmokeTest(at, score)
	if err != nil {
		return err
	}
	defer s.client.CloseIdleConnections()
	return runProbes(ctx, out, s.probes())
}

func (s *smokeTest) probes() []probe {
	return []probe{
		{"API answers", s.health},
		{"process is healthy", s.status("/health")},
		{"process lives", s.status("/livez")},
		{"process is ready", s.status("/readyz")},
		{"writes are allowed", s.writable},
		{"a stranger cannot write", s.stranger},
		{"log in", s.login},
		{"create a lead", s.create},
		{"read it back at once", s.readBack},
		{"update it", s.update},
		{"read the update back at once", s.readBack},
		{"a worker scores it", s.scored},
		{"log out", s.logout},
		{"metrics are exported", s.metrics},
		{"dashboard has alerts", s.dashboard},
		{"contract is reachable", s.openAPI},
	}
}

func (s *smokeTest) health(ctx context.Context) (string, error) {
	var reply struct{ Status, Instance string }
	if err := s.call(ctx, "GET", s.at.Target+"/api/health", nil, &reply, 200); err != nil {
		return "", err
	}
	return ": instance " + reply.Instance, want(reply.Status == "ok", "status is %q", reply.Status)
}

func (s *smokeTest) status(path string) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		return "", s.call(ctx, "GET", s.at.Admin+path, nil, nil, 200)
	}
}

func (s *smokeTest) writable(ctx context.Context) (string, error) {
	var reply struct{ Enabled bool }
	err := s.call(ctx, "GET", s.at.Admin+"/api/v1/admin/read-only-mode", nil, &reply, 200)
	return "", errors.Join(err, want(!reply.Enabled, "read-only mode is on; DELETE /api/v1/admin/read-only-mode ends it"))
}

func (s *smokeTest) stranger(ctx context.Context) (string, error) {
	return "", s.call(ctx, "POST", s.at.Target+"/api/v1/leads", s.lead(), nil, 401)
}

func (s *smokeTest) login(ctx context.Context) (string, error) {
	err := s.call(ctx, "POST", s.at.Target+"/login", map[string]string{"user": smokeUser}, nil, 200)
	return "", errors.Join(err, s.iAm(ctx, smokeUser))
}

func (s *smokeTest) logout(ctx context.Context) (string, error) {
	err := s.call(ctx, "POST", s.at.Target+"/logout", nil, nil, 204)
	return "", errors.Join(err, s.iAm(ctx, ""))
}

func (s *smokeTest) iAm(ctx context.Context, user string) error {
	var me struct{ User string }
	err := s.call(ctx, "GET", s.at.Target+"/api/v1/me", nil, &me, 200)
	return errors.Join(err, want(me.User == user, "the API takes me for %q", me.User))
}

func (s *smokeTest) create(ctx context.Context) (string, error) {
	err := s.call(ctx, "POST", s.at.Target+"/api/v1/leads", s.lead(), &s.written, 201)
	return ": " + s.written.ID, err
}

func (s *smokeTest) update(ctx context.Context) (string, error) {
	if s.written.ID == "" {
		return "", errNoLead
	}
	before := s.written.Revision
	err := s.call(ctx, "PUT", s.at.Target+"/api/v1/leads/"+s.written.ID, map[string]string{"product": "auto"}, &s.written, 200)
	return "", errors.Join(err, want(err != nil || s.written.Revision == before+1, "the revision went from %d to %d", before, s.written.Revision))
}

// readBack reads often enough to meet every instance behind a balancer, most likely.
func (s *smokeTest) readBack(ctx context.Context) (string, error) {
	if s.written.ID == "" {
		return "", errNoLead
	}
	for range 10 {
		got, err := s.read(ctx)
		if err != nil {
			return "", err
		}
		if got.ID != s.written.ID || got.Revision != s.written.Revision || got.Product != s.written.Product {
			return "", fmt.Errorf("wrote revision %d of %s, read revision %d of %s", s.written.Revision, s.written.ID, got.Revision, got.ID)
		}
	}
	return "", nil
}

func (s *smokeTest) scored(ctx context.Context) (string, error) {
	if s.written.ID == "" {
		return "", errNoLead
	}
	ctx, cancel := context.WithTimeout(ctx, s.scoreWithin)
	defer cancel()
	for {
		got, err := s.read(ctx)
		switch {
		case err == nil && got.Score != nil:
			return fmt.Sprintf(": %d points", *got.Score), nil
		case ctx.Err() != nil:
			return "", fmt.Errorf("no score in %v: do workers run, is lead-processing paused?", s.scoreWithin)
		case err != nil:
			return "", err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// metrics waits a little for what one process samples for all: it is absent while another one takes that over.
func (s *smokeTest) metrics(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.scoreWithin)
	defer cancel()
	for {
		missing, err := s.missing(ctx)
		if err == nil && len(missing) == 0 {
			return "", nil
		}
		select {
		case <-ctx.Done():
			return "", errors.Join(err, want(err != nil, "no %s", strings.Join(missing, ", ")))
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (s *smokeTest) missing(ctx context.Context) (names []string, err error) {
	body, err := s.get(ctx, s.at.Admin+"/metrics")
	if err != nil {
		return nil, err
	}
	for _, series := range []metrics.Series{metrics.DBNodeUp, metrics.DBPoolMax, metrics.QueueTasks, metrics.CacheMemoryUsed} {
		if !strings.Contains(string(body), "\n"+series.Name+"{") {
			names = append(names, series.Name)
		}
	}
	return names, nil
}

func (s *smokeTest) dashboard(ctx context.Context) (string, error) {
	var reply struct {
		Alerts *[]struct{ State string }
	}
	err := s.call(ctx, "GET", s.at.Admin+"/api/v1/performance/capacity/dashboard", nil, &reply, 200)
	if err != nil || reply.Alerts == nil {
		return "", errors.Join(err, want(err != nil, "it has no field alerts"))
	}
	firing := 0
	for _, alert := range *reply.Alerts {
		if alert.State == "firing" {
			firing++
		}
	}
	return fmt.Sprintf(": %d firing", firing), nil
}

func (s *smokeTest) openAPI(ctx context.Context) (string, error) {
	var reply struct{ Paths map[string]any }
	err := s.call(ctx, "GET", s.at.Admin+"/openapi.json", nil, &reply, 200)
	return fmt.Sprintf(": %d paths", len(reply.Paths)), errors.Join(err, want(err != nil || len(reply.Paths) > 0, "it has no paths"))
}

var errNoLead = errors.New("no lead was created")

func want(holds bool, format string, args ...any) error {
	if holds {
		return nil
	}
	return fmt.Errorf(format, args...)
}
