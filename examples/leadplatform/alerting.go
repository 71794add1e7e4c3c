package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/scaleaware/scaleaware/metrics"
)

// Alerting is when the platform raises alerts; the zero value is by the runbook's table.
type Alerting struct {
	// Thresholds is a file of them, empty for none. It is read where a service starts: all of its processes must find it.
	Thresholds string
	// Window is the time that rates and quantiles are taken over, Interval the time between two evaluations.
	Window, Interval time.Duration
}

// alertingFromEnv reads its part of the environment.
func alertingFromEnv() (Alerting, error) {
	a := Alerting{Thresholds: os.Getenv("THRESHOLDS")}
	var errs []error
	for name, to := range map[string]*time.Duration{"ALERT_WINDOW": &a.Window, "ALERT_INTERVAL": &a.Interval} {
		text := os.Getenv(name)
		if text == "" {
			continue
		}
		var err error
		if *to, err = time.ParseDuration(text); err != nil || *to <= 0 {
			errs = append(errs, fmt.Errorf("%s is not a time such as 30s", name))
		}
	}
	return a, errors.Join(errs...)
}

// environment is the inverse of alertingFromEnv.
func (a Alerting) environment() []string {
	vars := map[string]string{"THRESHOLDS": a.Thresholds}
	if a.Window > 0 {
		vars["ALERT_WINDOW"] = a.Window.String()
	}
	if a.Interval > 0 {
		vars["ALERT_INTERVAL"] = a.Interval.String()
	}
	return env(vars)
}

// Table is the runbook's with these changes.
func (a Alerting) Table() (metrics.Table, error) {
	table := metrics.KeyMetrics()
	table.Window, table.Interval = a.Window, a.Interval
	if a.Thresholds == "" {
		return table, nil
	}
	file, err := os.Open(a.Thresholds)
	if err != nil {
		return table, fmt.Errorf("THRESHOLDS: %w", err)
	}
	defer file.Close()
	changes, err := metrics.ReadOverrides(file)
	if err != nil {
		return table, fmt.Errorf("THRESHOLDS: %w", err)
	}
	table, err = table.Override(changes)
	if err != nil {
		return table, fmt.Errorf("THRESHOLDS: %w", err)
	}
	return table, nil
}
