package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/examples/lead"
)

// The servers need not be there: what is chosen is known at the start, and wrong choices end it.
func TestAutoscaleIsChosenByTheEnvironment(t *testing.T) {
	t.Setenv("DATABASE_URL_PRIMARY", "postgres://localhost:1/leads")
	t.Setenv("REDIS_ADDRS", "localhost:1")
	t.Setenv("SESSION_SECRET", strings.Repeat("s", 32))
	config, err := lead.FromEnvironment("worker")
	if err != nil {
		t.Fatal(err)
	}
	for choice, problem := range map[string]string{
		"": "", "slots": "", "off": "", "dry-run": "", "deployment/lead-worker": "", "https://scaler.example.com/workers": "",
		"deployment/": "AUTOSCALE", "deployment/No Name": "AUTOSCALE", "https://": "AUTOSCALE", "slot": "want slots, deployment/NAME",
	} {
		t.Run(choice, func(t *testing.T) {
			service, err := lead.Open(t.Context(), config, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer service.Close()
			worker, err := service.NewWorker(nil)
			if err != nil {
				t.Fatal(err)
			}
			err = autoscale(service, worker, choice)
			if (err == nil) != (problem == "") || err != nil && !strings.Contains(err.Error(), problem) {
				t.Errorf("error = %v, want one with %q", err, problem)
			}
		})
	}
}
