package main

import (
	"strings"
	"testing"
)

func TestConfigErrorsNameVariablesNotValues(t *testing.T) {
	for name, vars := range map[string]map[string]string{
		"DATABASE_POOL_MAX":    {"DATABASE_POOL_MAX": "hunter2"},
		"DATABASE_POOL_MIN":    {"DATABASE_POOL_MIN": "50", "DATABASE_POOL_MAX": "5"},
		"REDIS_URL":            {"DATABASE_URL_PRIMARY": "postgres://hunter2@h/d", "REDIS_URL": "redis://:hunter2@h", "REDIS_ADDRS": "h:1"},
		"DATABASE_URL_PRIMARY": {"REDIS_ADDRS": "h:1"},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range vars {
				t.Setenv(variable, value)
			}
			_, err := configFromEnv()
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
	c, err := configFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if c.PrimaryURL != "postgres://app:p%40ss@db:5432/leads" || c.ReplicaURLs[0] != "postgres://app:p%40ss@r1/leads" || c.ReplicaURLs[1] != "postgres://app:own@r2/leads" {
		t.Fatalf("URLs: %s %v", c.PrimaryURL, c.ReplicaURLs)
	}
}

func TestZipfStaysInRange(t *testing.T) {
	for n := 1; n < 50; n++ {
		first := 0
		for range 2000 {
			i := zipf(n)
			if i < 0 || i >= n {
				t.Fatalf("zipf(%d) = %d", n, i)
			}
			if i == 0 {
				first++
			}
		}
		if n > 1 && first <= 2000/n {
			t.Fatalf("of %d, the first was drawn %d times of 2000: no more than its share", n, first)
		}
	}
}
