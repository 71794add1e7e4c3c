package main_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/scaleaware/scaleaware/metrics"
)

// runbook makes every request of testdata/runbook.sh. Each must succeed, whatever the ones before it did.
func runbook(t *testing.T, p *platform) {
	s := p.state(t)
	script, err := os.ReadFile("testdata/runbook.sh")
	if err != nil {
		t.Fatal(err)
	}
	requests := 0
	for line := range strings.Lines(string(script)) {
		if !strings.HasPrefix(line, "curl ") {
			continue
		}
		requests++
		method, path, body := parseCurl(t, strings.TrimSpace(line))
		if path == "/health" { // a busy machine answers a check late, and then it is not well for a moment
			eventually(t, 30*time.Second, "the platform is well", func() bool { status, _, _ := send(t, method, s.Admin+path, body); return status == http.StatusOK })
		}
		status, header, reply := send(t, method, s.Admin+path, body)
		if status/100 != 2 || !json.Valid(reply) || !strings.HasPrefix(header.Get("Content-Type"), "application/json") {
			t.Errorf("%s\n  %d %s", line, status, reply)
		}
		if strings.HasSuffix(path, "capacity/dashboard") {
			var dashboard struct{ Alerts *[]json.RawMessage }
			if err := json.Unmarshal(reply, &dashboard); err != nil || dashboard.Alerts == nil {
				t.Errorf("jq .alerts would not print an array: %.300s", reply)
			}
		}
	}
	if requests != 16 {
		t.Fatalf("%d requests, want 16", requests)
	}
	// The load balancer's check: ten requests, spread over the instances.
	instances := map[string]bool{}
	for range 10 {
		instances[call[struct{ Instance string }](t, "GET", s.API+"/api/health", "").Instance] = true
	}
	if len(instances) < 2 {
		t.Errorf("ten requests went to %v alone", instances)
	}
	call[map[string]any](t, "POST", s.Admin+"/api/v1/performance/jobs/low-priority/resume", "")
	call[map[string]any](t, "DELETE", s.Admin+"/api/v1/performance/cache/extend-ttls", "")
}

// parseCurl understands as much of curl's command line as the runbook uses.
func parseCurl(t *testing.T, line string) (method, path, body string) {
	t.Helper()
	method = http.MethodGet
	words := shellWords(line)
	for i := 1; i < len(words); i++ {
		switch word := words[i]; {
		case word == "-s":
		case word == "-X":
			i++
			method = words[i]
		case word == "-H":
			i++ // send sets it
		case word == "-d":
			i++
			body = words[i]
		default:
			var ok bool
			if path, ok = strings.CutPrefix(word, "http://localhost:3002"); !ok {
				t.Fatalf("%s: what is %q?", line, word)
			}
		}
	}
	return method, path, body
}

// shellWords splits at spaces outside of quotes.
func shellWords(line string) (words []string) {
	var word strings.Builder
	var quote rune
	for _, r := range line + " " {
		switch {
		case quote == 0 && (r == '\'' || r == '"'):
			quote = r
		case r == quote:
			quote = 0
		case quote == 0 && r == ' ':
			words = append(words, word.String())
			word.Reset()
		default:
			word.WriteRune(r)
		}
	}
	return words
}

// reads sums the reads of all API instances by where they were served.
func reads(t *testing.T, p *platform) (replicas, all float64) {
	t.Helper()
	for _, process := range p.state(t).Processes {
		if process.API == "" {
			continue
		}
		_, _, text := send(t, "GET", "http://"+process.Admin+"/metrics", "")
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range families[metrics.DBReads.Name].GetMetric() {
			all += m.GetCounter().GetValue()
			for _, l := range m.GetLabel() {
				if l.GetName() == "role" && l.GetValue() == "replica" {
					replicas += m.GetCounter().GetValue()
				}
			}
		}
	}
	return replicas, all
}
