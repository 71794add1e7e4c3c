package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// Config is what the environment says, in the names of the runbook.
type Config struct {
	PrimaryURL     string
	ReplicaURLs    []string
	PoolMin        int32
	PoolMax        int32
	RedisAddrs     []string
	RedisURL       string
	SessionSecrets []string
	AdminToken     string
	Port           string
	AdminAddr      string
	Alerting       Alerting
}

// configFromEnv reads the environment. Errors name variables, never their values.
func configFromEnv() (Config, error) {
	c := Config{
		PrimaryURL:     os.Getenv("DATABASE_URL_PRIMARY"),
		ReplicaURLs:    list("DATABASE_URL_REPLICA"),
		RedisAddrs:     list("REDIS_ADDRS"),
		RedisURL:       os.Getenv("REDIS_URL"),
		SessionSecrets: list("SESSION_SECRET"),
		AdminToken:     os.Getenv("ADMIN_TOKEN"),
		Port:           or(os.Getenv("PORT"), "3000"),
		AdminAddr:      or(os.Getenv("ADMIN_ADDR"), "127.0.0.1:3002"),
	}
	c.PrimaryURL = withPassword(c.PrimaryURL, os.Getenv("DB_PASSWORD"))
	for i, replica := range c.ReplicaURLs {
		c.ReplicaURLs[i] = withPassword(replica, os.Getenv("DB_PASSWORD"))
	}
	var errs []error
	number := func(name string, fallback int32) int32 {
		text := os.Getenv(name)
		if text == "" {
			return fallback
		}
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			errs = append(errs, fmt.Errorf("%s is not a number of connections", name))
		}
		return int32(n)
	}
	c.PoolMin = number("DATABASE_POOL_MIN", 2)
	c.PoolMax = number("DATABASE_POOL_MAX", 10)
	if c.PoolMin > c.PoolMax {
		errs = append(errs, errors.New("DATABASE_POOL_MIN is above DATABASE_POOL_MAX"))
	}
	if len(c.RedisAddrs) > 0 && c.RedisURL != "" {
		errs = append(errs, errors.New("REDIS_ADDRS and REDIS_URL are both set, unset one"))
	}
	var err error
	c.Alerting, err = alertingFromEnv()
	errs = append(errs, err)
	if (c.PrimaryURL == "") != (len(c.RedisAddrs) == 0 && c.RedisURL == "") {
		errs = append(errs, errors.New("set DATABASE_URL_PRIMARY and REDIS_ADDRS (or REDIS_URL) together, or neither to get servers on this machine"))
	}
	return c, errors.Join(errs...)
}

// environment is the inverse of configFromEnv, for children.
func (c Config) environment() []string {
	return append(c.Alerting.environment(), env(map[string]string{
		"DATABASE_URL_PRIMARY": c.PrimaryURL,
		"DATABASE_URL_REPLICA": strings.Join(c.ReplicaURLs, ","),
		"DATABASE_POOL_MIN":    strconv.Itoa(int(c.PoolMin)),
		"DATABASE_POOL_MAX":    strconv.Itoa(int(c.PoolMax)),
		"REDIS_ADDRS":          strings.Join(c.RedisAddrs, ","),
		"REDIS_URL":            c.RedisURL,
		"SESSION_SECRET":       strings.Join(c.SessionSecrets, ","),
		"ADMIN_TOKEN":          c.AdminToken,
		"PORT":                 "0",
		"ADMIN_ADDR":           "127.0.0.1:0",
	})...)
}

func (c Config) hasServers() bool { return c.PrimaryURL != "" }

func list(name string) []string {
	var out []string
	for item := range strings.SplitSeq(os.Getenv(name), ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

// withPassword puts DB_PASSWORD into a URL that has a user and no password.
func withPassword(raw, password string) string {
	u, err := url.Parse(raw)
	if err != nil || password == "" || u.User == nil {
		return raw // dbsplit says what is wrong with it
	}
	if _, has := u.User.Password(); !has {
		u.User = url.UserPassword(u.User.Username(), password)
	}
	return u.String()
}

func or(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
