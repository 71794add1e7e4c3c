package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakeAPI is an API as the profiles expect it, in memory, with one fault.
type fakeAPI struct {
	fault string

	requests, health atomic.Int64
	mu               sync.Mutex
	leads            map[string]int // revisions
	order            []string
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := f.requests.Add(1)
	switch {
	case f.fault == "answers 500 to one in fifty" && n%50 == 0:
		w.WriteHeader(http.StatusInternalServerError)
		return
	case f.fault == "one in ten is slow" && n%10 == 0:
		time.Sleep(300 * time.Millisecond) // a slow server is the fault itself, nothing waits for this
	case f.fault == "one in fifty is very slow" && n%50 == 0:
		time.Sleep(700 * time.Millisecond)
	case f.fault == "hangs up on one in fifty" && n%50 == 0:
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush() // a client asks again for what it has heard nothing of
		panic(http.ErrAbortHandler)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	id := strings.TrimPrefix(r.URL.Path, "/api/v1/leads/")
	one := func(revision int) { _ = json.NewEncoder(w).Encode(map[string]any{"id": id, "revision": revision}) }
	switch {
	case r.URL.Path == "/api/health":
		instance := f.health.Add(1)%3 + 1
		if f.fault == "an instance gets nothing" && instance == 3 {
			instance = 1
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"instance": fmt.Sprintf("api-%d", instance)})
	case r.Method == "GET" && r.URL.Path == "/api/v1/leads":
		var leads []map[string]any
		for _, id := range f.order {
			leads = append(leads, map[string]any{"id": id})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"leads": leads})
	case r.Method == "POST" && r.URL.Path == "/api/v1/leads":
		id = fmt.Sprint("lead-", n)
		f.leads[id], f.order = 1, append(f.order, id)
		w.WriteHeader(http.StatusCreated)
		one(1)
	case r.Method == "PUT":
		f.leads[id]++
		one(f.leads[id])
	case r.Method == "GET" && f.fault == "reads are stale" && f.leads[id] > 1:
		one(f.leads[id] - 1)
	case r.Method == "GET" && f.fault == "reads do not find" && f.leads[id] == 1 && n%5 == 0:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == "GET":
		one(f.leads[id])
	}
}

// hurried is the distributed profile within two seconds, patient if the test is not about latency.
func hurried(t *testing.T, aboutLatency bool) string {
	t.Helper()
	blob, err := os.ReadFile(distributed)
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`think: 1`).ReplaceAllString(string(blob), "think: 0.02")
	// Fewer seconds and shorter thoughts, the same users.
	text = regexp.MustCompile(`duration: \d+, arrivalRate: \d+(, rampTo: \d+)?`).ReplaceAllString(text, "duration: 0.4, arrivalRate: 40$1")
	if !aboutLatency {
		text = slow(text)
	}
	return written(t, text)
}

// patient is a profile with other bounds of latency and of failures: what is slow enough is refused. Nothing may be stale.
func patient(text string) string {
	return slow(strings.ReplaceAll(text, "vusers.created < 0.001", "vusers.created < 0.2"))
}

// slow is a profile with other bounds of latency: a busy machine is slow by itself.
func slow(text string) string {
	return regexp.MustCompile(`response_time\.(p9\d): \d+`).ReplaceAllString(text, "response_time.$1: 9000")
}

func written(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "profile.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestABrokenServerFailsTheRightCheck(t *testing.T) {
	const p95, p99, stale, failed, instances = "http.response_time.p95", "http.response_time.p99", "stale_reads", "vusers.failed", "instance.api-1"
	for fault, want := range map[string][]string{
		"none":                        nil,
		"one in ten is slow":          {p95},
		"one in fifty is very slow":   {p99},
		"answers 500 to one in fifty": {failed},
		"hangs up on one in fifty":    {failed},
		"reads are stale":             {stale},
		"reads do not find":           {stale, failed},
		"an instance gets nothing":    {instances},
	} {
		t.Run(fault, func(t *testing.T) {
			server := httptest.NewServer(&fakeAPI{fault: fault, leads: map[string]int{"first": 1}, order: []string{"first"}})
			defer server.Close()
			var out bytes.Buffer
			err := run(t.Context(), &out, Place{Target: server.URL}, []string{"run", hurried(t, strings.Contains(fault, "slow"))})
			var named []string
			for line := range strings.Lines(out.String()) {
				if rest, ok := strings.CutPrefix(line, "FAIL "); ok {
					named = append(named, rest)
				}
			}
			missing := len(named) < len(want) || len(named) > len(want) && !strings.Contains(fault, "slow")
			for _, name := range want {
				missing = missing || !strings.Contains(strings.Join(named, " "), name)
			}
			if missing || (err == nil) != (want == nil) {
				t.Errorf("failed %q with error %v, want %q:\n%s", named, err, want, out.String())
			}
		})
	}
}

// A server that stops for a while must not look fast because its clients waited politely.
func TestNoCoordinatedOmission(t *testing.T) {
	var pause sync.RWMutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		pause.RLock()
		defer pause.RUnlock()
		fmt.Fprint(w, `{"instance":"api-1"}`)
	}))
	defer server.Close()
	pause.Lock()
	time.AfterFunc(500*time.Millisecond, pause.Unlock)
	p := Profile{
		Config:    Config{HTTP: HTTP{Timeout: 5}, Phases: []Phase{{Duration: 1, ArrivalRate: 100}}},
		Scenarios: []Scenario{{Weight: 1, Flow: []Step{{Get: &Request{Name: "health", URL: "/"}}}}},
	}
	tally, err := Run(t.Context(), p, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	// Those who arrived in the pause waited 250 ms on average: a client that goes on after each answer would see one.
	rows := tally.Rows()
	if got := rows[len(rows)-1]; got.Requests != 100 || got.P95 < 400 || got.Max < 450 {
		t.Errorf("latencies %+v", got)
	}
}
