package lead

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
	var err1, err2 error
	a.Window, err1 = duration("ALERT_WINDOW", 0)
	a.Interval, err2 = duration("ALERT_INTERVAL", 0)
	return a, errors.Join(err1, err2)
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
