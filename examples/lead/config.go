package lead

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Config is what the environment says, in the names of the runbook.
type Config struct {
	// Instance names the process in logs, metrics and the proof of read-only mode. No two of a fleet may share one.
	Instance    string
	PrimaryURL  string
	ReplicaURLs []string
	PoolMin     int32
	PoolMax     int32
	// MaxRequests is how many requests an API instance works on at once; it refuses more. Ten for each connection of the
	// pool keep a request from waiting for longer than ten others take.
	MaxRequests    int32
	RedisAddrs     []string
	RedisURL       string
	SessionSecrets []string
	// AdminToken may do everything on the management listener, ViewerToken may read: it is Prometheus's.
	AdminToken, ViewerToken string
	// PlainHTTP lets cookies be sent without TLS.
	PlainHTTP bool
	// Host and Port are where the API listens. A container wants 0.0.0.0 for Host.
	Host, Port string
	AdminAddr  string
	Alerting   Alerting
	// DrainDelay is how long an API instance that is told to stop still accepts requests: until whoever sends them has
	// seen that it is not ready any more. DrainTimeout is how long requests and jobs in flight may take to end then.
	DrainDelay, DrainTimeout time.Duration
}

// FromEnvironment reads the environment. Errors name variables, never their values. Role is part of the name of an
// instance that has none.
func FromEnvironment(role string) (Config, error) {
	host, _ := os.Hostname() // in containers, the process id alone is the same everywhere
	c := Config{
		Instance:       or(os.Getenv("INSTANCE"), fmt.Sprintf("%s-%s-%d", role, host, os.Getpid())),
		PrimaryURL:     os.Getenv("DATABASE_URL_PRIMARY"),
		ReplicaURLs:    list("DATABASE_URL_REPLICA"),
		RedisAddrs:     list("REDIS_ADDRS"),
		RedisURL:       os.Getenv("REDIS_URL"),
		SessionSecrets: list("SESSION_SECRET"),
		AdminToken:     os.Getenv("ADMIN_TOKEN"),
		ViewerToken:    os.Getenv("VIEWER_TOKEN"),
		Host:           or(os.Getenv("HOST"), "127.0.0.1"),
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
			errs = append(errs, fmt.Errorf("%s is not a number of 0 or more", name))
		}
		return int32(n)
	}
	c.PoolMin = number("DATABASE_POOL_MIN", 2)
	c.PoolMax = number("DATABASE_POOL_MAX", 10)
	c.MaxRequests = number("MAX_REQUESTS", 10*c.PoolMax)
	if c.MaxRequests == 0 {
		errs = append(errs, errors.New("MAX_REQUESTS is 0, want 1 or more"))
	}
	if c.PoolMin > c.PoolMax {
		errs = append(errs, errors.New("DATABASE_POOL_MIN is above DATABASE_POOL_MAX"))
	}
	if c.ViewerToken != "" && (c.AdminToken == "" || c.AdminToken == c.ViewerToken) {
		errs = append(errs, errors.New("VIEWER_TOKEN needs an ADMIN_TOKEN beside it, another one, or nobody could operate"))
	}
	if text := os.Getenv("PLAIN_HTTP"); text != "" {
		var err error
		if c.PlainHTTP, err = strconv.ParseBool(text); err != nil {
			errs = append(errs, errors.New("PLAIN_HTTP is neither true nor false"))
		}
	}
	if len(c.RedisAddrs) > 0 && c.RedisURL != "" {
		errs = append(errs, errors.New("REDIS_ADDRS and REDIS_URL are both set, unset one"))
	}
	var err1, err2, err3 error
	c.Alerting, err1 = alertingFromEnv()
	c.DrainDelay, err2 = duration("DRAIN_DELAY", 5*time.Second)
	c.DrainTimeout, err3 = duration("DRAIN_TIMEOUT", 20*time.Second)
	errs = append(errs, err1, err2, err3)
	if (c.PrimaryURL == "") != (len(c.RedisAddrs) == 0 && c.RedisURL == "") {
		errs = append(errs, errors.New("set DATABASE_URL_PRIMARY and REDIS_ADDRS (or REDIS_URL) together, or neither to get servers on this machine"))
	}
	return c, errors.Join(errs...)
}

// MigrationsURL is the primary's, past any pooler: DATABASE_URL_MIGRATIONS, or DATABASE_URL_PRIMARY.
func MigrationsURL() (string, error) {
	url := or(os.Getenv("DATABASE_URL_MIGRATIONS"), os.Getenv("DATABASE_URL_PRIMARY"))
	if url == "" {
		return "", errors.New("set DATABASE_URL_PRIMARY, or DATABASE_URL_MIGRATIONS where PgBouncer stands before the primary")
	}
	return withPassword(url, os.Getenv("DB_PASSWORD")), nil
}

// Environment is the inverse of FromEnvironment, for children, which listen where the system chooses.
func (c Config) Environment() []string {
	return append(c.Alerting.environment(), env(map[string]string{
		"DATABASE_URL_PRIMARY": c.PrimaryURL,
		"DATABASE_URL_REPLICA": strings.Join(c.ReplicaURLs, ","),
		"DATABASE_POOL_MIN":    strconv.Itoa(int(c.PoolMin)),
		"DATABASE_POOL_MAX":    strconv.Itoa(int(c.PoolMax)),
		"MAX_REQUESTS":         strconv.Itoa(int(c.MaxRequests)),
		"REDIS_ADDRS":          strings.Join(c.RedisAddrs, ","),
		"REDIS_URL":            c.RedisURL,
		"SESSION_SECRET":       strings.Join(c.SessionSecrets, ","),
		"ADMIN_TOKEN":          c.AdminToken,
		"VIEWER_TOKEN":         c.ViewerToken,
		"PLAIN_HTTP":           strconv.FormatBool(c.PlainHTTP),
		"DRAIN_DELAY":          c.DrainDelay.String(),
		"DRAIN_TIMEOUT":        c.DrainTimeout.String(),
		"HOST":                 "127.0.0.1",
		"PORT":                 "0",
		"ADMIN_ADDR":           "127.0.0.1:0",
	})...)
}

// HasServers reports whether the environment names servers.
func (c Config) HasServers() bool { return c.PrimaryURL != "" }

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

// duration reads a time from the environment.
func duration(name string, fallback time.Duration) (time.Duration, error) {
	text := os.Getenv(name)
	if text == "" {
		return fallback, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%s is not a time such as 30s", name)
	}
	return d, nil
}

func env(pairs map[string]string) []string {
	var out []string
	for name, value := range pairs {
		out = append(out, name+"="+value)
	}
	return out
}

// maxLoads is how many reads the cache may have under way in the database at once: half of the pool is for everybody else,
// however many entries are missed at a time.
func (c Config) maxLoads() int { return max(1, int(c.PoolMax/2)) }
