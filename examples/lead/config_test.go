package lead

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConfigErrorsNameVariablesNotValues(t *testing.T) {
	for name, vars := range map[string]map[string]string{
		"DATABASE_POOL_MAX":    {"DATABASE_POOL_MAX": "hunter2"},
		"DATABASE_POOL_MIN":    {"DATABASE_POOL_MIN": "50", "DATABASE_POOL_MAX": "5"},
		"REDIS_URL":            {"DATABASE_URL_PRIMARY": "postgres://hunter2@h/d", "REDIS_URL": "redis://:hunter2@h", "REDIS_ADDRS": "h:1"},
		"DATABASE_URL_PRIMARY": {"REDIS_ADDRS": "h:1"},
		"ALERT_WINDOW":         {"ALERT_WINDOW": "hunter2"},
		"ALERT_INTERVAL":       {"ALERT_INTERVAL": "-5s"},
		"DRAIN_DELAY":          {"DRAIN_DELAY": "hunter2"},
		"MAX_REQUESTS":         {"MAX_REQUESTS": "0"},
		"PLAIN_HTTP":           {"PLAIN_HTTP": "hunter2"},
		"VIEWER_TOKEN":         {"VIEWER_TOKEN": "hunter2"},
		"another one":          {"VIEWER_TOKEN": "hunter2", "ADMIN_TOKEN": "hunter2"},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range vars {
				t.Setenv(variable, value)
			}
			_, err := FromEnvironment("test")
			if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("error = %v", err)
			}
		})
	}
}

func TestPasswordComesFromItsOwnVariable(t *testing.T) {
	t.Setenv("DATABASE_URL_PRIMARY", "postgres://app@db:5432/leads")
	t.Setenv("DATABASE_URL_REPLICA", "postgres://app@r1/leads, postgres://app:own@r2/leads")
	t.Setenv("REDIS_ADDRS", "h:1")
	t.Setenv("DB_PASSWORD", "p@ss")
	c, err := FromEnvironment("test")
	if err != nil {
		t.Fatal(err)
	}
	if c.PrimaryURL != "postgres://app:p%40ss@db:5432/leads" || c.ReplicaURLs[0] != "postgres://app:p%40ss@r1/leads" || c.ReplicaURLs[1] != "postgres://app:own@r2/leads" {
		t.Fatalf("URLs: %s %v", c.PrimaryURL, c.ReplicaURLs)
	}
}

func TestThresholdsReachTheTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "thresholds.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"queue_depth": {"warning": 50, "critical": 150}}`)
	t.Setenv("THRESHOLDS", path)
	t.Setenv("ALERT_WINDOW", "20s")
	t.Setenv("ALERT_INTERVAL", "2s")
	c, err := FromEnvironment("test")
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range c.Environment() { // a child reads the same
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	a, err := alertingFromEnv()
	if err != nil || a != c.Alerting {
		t.Errorf("a child has %+v, %v, want %+v", a, err, c.Alerting)
	}
	table, err := a.Table()
	depth, _ := table.Row("queue_depth")
	if err != nil || depth.Critical != 150 || table.Window != 20*time.Second || table.Interval != 2*time.Second {
		t.Errorf("queue_depth is critical above %v, window %v, interval %v: %v", depth.Critical, table.Window, table.Interval, err)
	}
	for _, wrong := range []string{"", `{"no_such_metric": {"warning": 1}}`} {
		write(wrong)
		if _, err := a.Table(); err == nil || !strings.Contains(err.Error(), "THRESHOLDS") {
			t.Errorf("of %q: %v", wrong, err)
		}
	}
}
