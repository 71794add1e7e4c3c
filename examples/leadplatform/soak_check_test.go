package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// request makes a request of a management listener; status 0 means that there was no answer.
func (s *soak) request(method, url, body string) (status int, reply string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	blob, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(blob))
}

// operate calls the platform's own management listener.
func (s *soak) operate(method, path string) (status int, reply string) {
	state, err := s.p.read()
	if err != nil {
		return 0, err.Error()
	}
	body := ""
	if strings.HasSuffix(path, "/invalidate") {
		body = `{"pattern":"*"}`
	}
	return s.request(method, state.Admin+path, body)
}

// insist repeats an operation until it succeeds.
func (s *soak) insist(request [2]string) error {
	deadline := time.Now().Add(60 * time.Second)
	for {
		status, reply := s.operate(request[0], request[1])
		if status/100 == 2 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s %s is %d for a minute: %s", request[0], request[1], status, reply)
		}
		<-time.After(250 * time.Millisecond)
	}
}

// ask queries the primary, past its proxy.
func (s *soak) ask(sql string, args ...any) (text string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := s.primary().Connect(ctx, soakDatabase)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, sql, args...).Scan(&text)
	return text, err
}

// within polls; what it waits for must come once all is healed.
func (s *soak) within(d time.Duration, what string, ok func() (bool, string)) {
	began := time.Now()
	for {
		done, now := ok()
		if done {
			s.log("%v after the last heal: %s", time.Since(began).Round(100*time.Millisecond), what)
			return
		}
		if time.Since(began) > d {
			s.violate(nil, "not %v after the last heal: %s; %s", d, what, now)
			return
		}
		<-time.After(200 * time.Millisecond)
	}
}

// healedFor checks, after the last heal and under the same load, that nothing of the faults is left.
func (s *soak) healedFor(before map[string]usage) {
	s.within(15*time.Second, "no error for five seconds", func() (bool, string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return time.Since(s.lastError) > 5*time.Second, fmt.Sprintf("the last one %v ago", time.Since(s.lastError))
	})
	s.within(30*time.Second, "every process is healthy", s.healthy)
	s.within(90*time.Second, "no alert fires", s.alarms.silent)
	s.log("alerts that fired: %v", s.alarms.names())
	s.converges()
	if !s.isBroken() {
		s.rest(soakWarmUp)
		s.compare(before, s.resources())
	}
}

func (s *soak) healthy() (bool, string) {
	state, err := s.p.read()
	if err != nil || !state.Up() {
		return false, "not all processes are up"
	}
	listeners := []string{state.Admin}
	for _, p := range state.Processes {
		listeners = append(listeners, "http://"+p.Admin)
	}
	for _, at := range listeners {
		status, reply := s.request("GET", at+"/health", "")
		var health struct{ Status string }
		if json.Unmarshal([]byte(reply), &health) != nil || status != http.StatusOK || health.Status != "ok" {
			return false, reply
		}
	}
	return true, ""
}

// usage is what a process, or a server, holds.
type usage struct{ goroutines, descriptors, bytes, connections float64 }

// resources measures every process of the platform, and the connections to each database server.
func (s *soak) resources() map[string]usage {
	all := map[string]usage{}
	state := s.p.state(s.t)
	listeners := map[string]string{"platform": state.Admin}
	for _, p := range state.Processes {
		listeners[p.Name] = "http://" + p.Admin
	}
	for name, at := range listeners {
		_, text := s.request("GET", at+"/metrics", "")
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader([]byte(text + "\n")))
		if err != nil {
			s.violate(nil, "metrics of %s: %v", name, err)
		}
		gauge := func(name string) float64 {
			for _, m := range (families[name]).GetMetric() {
				return m.GetGauge().GetValue()
			}
			return 0
		}
		all[name] = usage{goroutines: gauge("go_goroutines"), descriptors: gauge("process_open_fds"), bytes: gauge("process_resident_memory_bytes")}
	}
	for _, server := range s.pg.Servers() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		var n float64
		conn, err := server.Connect(ctx, soakDatabase)
		if err == nil {
			err = conn.QueryRow(ctx, `SELECT count(*)::float8 FROM pg_stat_activity WHERE backend_type = 'client backend'`).Scan(&n)
			conn.Close(ctx)
		}
		if err != nil {
			s.violate(nil, "connections to %s: %v", server.Name(), err)
		}
		all[server.Name()] = usage{connections: n}
		cancel()
	}
	return all
}

// compare allows for pools that are fuller than at first, not for growth with each fault.
func (s *soak) compare(before, after map[string]usage) {
	for _, name := range slices.Sorted(maps.Keys(after)) {
		was, is := before[name], after[name]
		s.log("%s: %.0f goroutines before, %.0f after; descriptors %.0f, %.0f; MiB %.0f, %.0f; connections %.0f, %.0f", name,
			was.goroutines, is.goroutines, was.descriptors, is.descriptors, was.bytes/(1<<20), is.bytes/(1<<20), was.connections, is.connections)
		for what, pair := range map[string][3]float64{
			"goroutines": {was.goroutines, is.goroutines, 80}, "descriptors": {was.descriptors, is.descriptors, 60},
			"bytes": {was.bytes, is.bytes, 96 << 20}, "connections": {was.connections, is.connections, 40},
		} {
			if was != (usage{}) && pair[1] > 1.5*pair[0]+pair[2] {
				s.violate(nil, "%s has %.0f %s, %.0f before the faults", name, pair[1], what, pair[0])
			}
		}
	}
}

// ledger compares what the clients were told with what is stored, after they have stopped.
func (s *soak) ledger() {
	s.within(4*time.Minute, "every lead is scored and no job is left", s.workDone)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := s.primary().Connect(ctx, soakDatabase)
	if err != nil {
		s.violate(nil, "ledger: %v", err)
		return
	}
	defer conn.Close(ctx)
	rows, _ := conn.Query(ctx, `SELECT l.id::text, email, product, revision, score,
			(SELECT count(*) FROM "Event" WHERE "entityId" = l.id AND kind = 'created'), (SELECT count(*) FROM "Event" WHERE "entityId" = l.id AND kind = 'updated')
		FROM "Lead" l WHERE email LIKE 'soak-%'`)
	type stored struct {
		seenLead
		email            string
		created, updated int
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r stored, err error) {
		err = row.Scan(&r.ID, &r.email, &r.Product, &r.Revision, &r.Score, &r.created, &r.updated)
		return r, err
	})
	if err != nil {
		s.violate(nil, "ledger: %v", err)
	}
	byEmail := map[string][]stored{}
	for _, r := range all {
		byEmail[r.email] = append(byEmail[r.email], r)
		if r.created != 1 || r.updated != r.Revision-1 {
			s.violate(nil, "lead %s has revision %d, and %d events of its creation and %d of its updates", r.ID, r.Revision, r.created, r.updated)
		}
	}
	for _, c := range s.clients {
		for email, end := range c.ends {
			switch n := len(byEmail[email]); {
			case end == "acknowledged" && n != 1, end == "refused" && n != 0, n > 1:
				s.violate(c.last(email), "creation of %s was %s, and is stored %d times", email, end, n)
			}
		}
		for _, l := range c.leads {
			for _, r := range byEmail[l.email] {
				if problem := l.check(r.seenLead); problem != "" {
					s.violate(c.last(l.id), "stored lead %s: %s", l.id, problem)
				}
			}
		}
	}
}

func (s *soak) workDone() (bool, string) {
	unscored, err := s.ask(`SELECT count(*) || ' unscored leads, the first ' || coalesce(min(id::text), '-') || '; '
		|| (SELECT count(*) FROM scaleaware_outbox) || ' outbox rows' FROM "Lead" WHERE score IS NULL`)
	if err != nil {
		return false, err.Error()
	}
	status, reply := s.operate("GET", "/api/v1/performance/jobs")
	var list struct {
		Queues []struct {
			Queue                                              string
			Waiting, Active, Delayed, Retrying, Failed, Parked int
			Paused                                             bool
		}
	}
	if err := json.Unmarshal([]byte(reply), &list); err != nil || status != http.StatusOK || len(list.Queues) == 0 {
		return false, fmt.Sprintf("%s; queues: %d %s", unscored, status, reply)
	}
	done := strings.HasPrefix(unscored, "0 ") && strings.HasSuffix(unscored, "; 0 outbox rows")
	for _, q := range list.Queues {
		done = done && q.Waiting+q.Active+q.Delayed+q.Retrying+q.Failed+q.Parked == 0 && !q.Paused
	}
	return done, fmt.Sprintf("%s; %+v", unscored, list.Queues)
}
