package redisclient_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

func TestParseURL(t *testing.T) {
	for _, test := range []struct {
		url            string
		addrs          []string
		user, password string
		also           func(*redis.UniversalOptions) bool
	}{
		{url: "redis://", addrs: []string{"localhost:6379"}},
		{url: "redis://h", addrs: []string{"h:6379"}},
		{url: "redis://h:1/", addrs: []string{"h:1"}},
		{url: "redis://h:1/3", addrs: []string{"h:1"}, also: func(o *redis.UniversalOptions) bool { return o.DB == 3 }},
		{url: "redis://h?db=3", addrs: []string{"h:6379"}, also: func(o *redis.UniversalOptions) bool { return o.DB == 3 }},
		{url: "redis://:pw@h:1", addrs: []string{"h:1"}, password: "pw"},
		{url: "redis://me:p%40%2Fw%25@h:1", addrs: []string{"h:1"}, user: "me", password: "p@/w%"},
		{url: "redis://me:p@w@h:1", addrs: []string{"h:1"}, user: "me", password: "p@w"},
		{url: "redis://a:1,b,[::1]:3", addrs: []string{"a:1", "b:6379", "[::1]:3"}},
		{url: "redis://a:1?addr=b:2&addr=c:3", addrs: []string{"a:1", "b:2", "c:3"}},
		{url: "redis://[::1]", addrs: []string{"[::1]:6379"}},
		{url: "rediss://a:1", addrs: []string{"a:1"}, also: func(o *redis.UniversalOptions) bool { return o.TLSConfig != nil && o.TLSConfig.ServerName == "" }},
		{url: "redis://a:1?cluster=true", addrs: []string{"a:1"}, also: func(o *redis.UniversalOptions) bool { return o.IsClusterMode }},
		{url: "redis://a:1,b:2/4?master_name=m&client_name=me", addrs: []string{"a:1", "b:2"}, also: func(o *redis.UniversalOptions) bool {
			return o.MasterName == "m" && o.DB == 4 && o.ClientName == "me"
		}},
		{url: "redis://a:1?dial_timeout=1s&read_timeout=300ms&pool_size=5&min_idle_conns=2", addrs: []string{"a:1"}, also: func(o *redis.UniversalOptions) bool {
			return o.DialTimeout == time.Second && o.ReadTimeout == 300*time.Millisecond && o.PoolSize == 5 && o.MinIdleConns == 2
		}},
	} {
		t.Run(test.url, func(t *testing.T) {
			o, err := redisclient.ParseURL(test.url)
			check(t, err)
			if !slices.Equal(o.Addrs, test.addrs) {
				t.Errorf("Addrs = %q, want %q", o.Addrs, test.addrs)
			}
			var user, password string
			if o.CredentialsProviderContext != nil {
				user, password, _ = o.CredentialsProviderContext(context.Background())
			}
			if user != test.user || password != test.password {
				t.Errorf("credentials %q %q, want %q %q", user, password, test.user, test.password)
			}
			if test.also != nil && !test.also(o) {
				t.Errorf("options %+v", o)
			}
			if !o.ContextTimeoutEnabled || o.MaxRetries != -1 {
				t.Error("the options are not hardened")
			}
		})
	}
}

// malformed are URLs whose error go-redis would print with the password in it, and others.
var malformed = map[string]string{
	"//user:" + canary + "@h:1":                                  "begins with redis://",
	canary + "://h":                                              "begins with redis://",
	"http://user:" + canary + "@h:1":                             "begins with redis://",
	"redis://user:" + canary + "/x@h:1":                          "percent-encode",
	"redis://user:" + canary + "#x@h:1":                          "percent-encode",
	"redis://user:" + canary + "?x@h:1":                          "percent-encode",
	"redis://user:x/" + canary + "@h:1":                          "percent-encode",
	"redis://" + canary + ":1?client_name=x@h:1":                 "behind its hosts", // else the user would be the host
	"redis://user:%zz" + canary + "@h:1":                         "write %25",
	"redis://user:" + canary + "%@h:1":                           "write %25",
	"redis://user:" + canary:                                     "port of host 1",
	"redis://user:" + canary + "@h:99999":                        "port of host 1",
	"redis://user:" + canary + "@h:1,h:0":                        "port of host 2",
	"redis://user:" + canary + "@ho st":                          "host 1",
	"redis://user:" + canary + "@[::x]:1":                        "IPv6",
	"redis://user:" + canary + "@h\x7f":                          "host 1",
	"redis://user:" + canary + "@h:1/" + canary:                  "database",
	"redis://user:" + canary + "@h:1,h:2/1":                      "database but 0",
	"redis://user:" + canary + "@h:1?password=" + canary:         `unknown parameter "password"`,
	"redis://user:" + canary + "@h:1?read_timeout=" + canary:     "read_timeout",
	"redis://user:" + canary + "@h:1?read_timeout=-1s":           "read_timeout",
	"redis://user:" + canary + "@h:1?pool_size=" + canary:        "pool_size",
	"redis://user:" + canary + "@h:1?cluster=" + canary:          "cluster",
	"redis://user:" + canary + "@h:1?a=%zz" + canary:             "malformed",
	"redis://user:" + canary + "@h:1?addr=" + canary + ":" + "x": "port of host 2",
}

func TestErrorsOfURLsNameTheMistakeAndNotThePassword(t *testing.T) {
	for url, want := range malformed {
		_, err := redisclient.ParseURL(url)
		wantIn(t, err, want)
		noCanary(t, err)
	}
	_, err := redisclient.ParseURL("redis://h:x,h:y/z?pool_size=many")
	for _, want := range []string{"port of host 1", "database", "pool_size"} {
		wantIn(t, err, want)
	}
}

func noCanary(t *testing.T, values ...any) {
	t.Helper()
	for _, v := range values {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			if text := fmt.Sprintf(format, v); strings.Contains(text, canary) {
				t.Errorf("%s of %T shows the password: %s", format, v, text)
			}
		}
	}
}

// captured is what go-redis logs by itself.
type captured struct {
	mu   sync.Mutex
	text strings.Builder
}

func (c *captured) Printf(_ context.Context, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(&c.text, format+"\n", args...)
}

func TestNoPasswordAtRunTime(t *testing.T) {
	log := &captured{}
	redis.SetLogger(log)
	server := single.Get(t).Nodes()[0]
	cluster := shared.Get(t)
	short, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	for name, test := range map[string]struct {
		url string
		ctx context.Context
		ok  bool
	}{
		"right":          {"redis://:" + canary + "@" + server.Addr(), t.Context(), true},
		"wrong password": {"redis://:" + canary + "x@" + server.Addr(), t.Context(), false},
		"wrong user":     {"redis://" + canary + ":" + canary + "@" + server.Addr(), t.Context(), false},
		"cluster without passwords": {
			"redis://:" + canary + "@" + strings.Join(cluster.Addrs(), ","), t.Context(), false,
		},
		"refused":   {"redis://:" + canary + "@127.0.0.1:1", t.Context(), false},
		"no name":   {"redis://:" + canary + "@nowhere.invalid,nowhere.invalid", short, false},
		"no TLS":    {"rediss://:" + canary + "@" + server.Addr(), short, false},
		"no such":   {"redis://:" + canary + "@" + server.Addr() + "/99", t.Context(), false},
		"sentinels": {"redis://:" + canary + "@" + server.Addr() + "?master_name=main", t.Context(), false},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := redisclient.ParseURL(test.url)
			check(t, err)
			rdb := redisclient.New(o)
			defer rdb.Close()
			err = rdb.Get(test.ctx, "key").Err()
			if test.ok != (err == redis.Nil) {
				t.Errorf("GET: %v", err)
			}
			each := redisclient.EachMaster(test.ctx, rdb, func(ctx context.Context, c *redis.Client) error { return c.Ping(ctx).Err() })
			if !test.ok && each == nil && name != "cluster without passwords" {
				t.Error("EachMaster: no error")
			}
			noCanary(t, o, *o, err, each, redisclient.Describe(rdb), redisclient.Check(rdb))
			if s, ok := rdb.(fmt.Stringer); ok {
				noCanary(t, s.String())
			}
		})
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	noCanary(t, log.text.String())
}

func TestURLGivenAsAddress(t *testing.T) {
	for _, addr := range []string{"redis://:" + canary + "@127.0.0.1:1", ":" + canary + "@127.0.0.1:1"} {
		rdb := redisclient.New(redisclient.Options("127.0.0.1:2", addr))
		err := rdb.Ping(context.Background()).Err()
		wantIn(t, err, "use ParseURL")
		noCanary(t, err, redisclient.Describe(rdb))
		rdb.Close()
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("redis://user:", "@h:1,h:2?addr=h:3")
	f.Add("redis://", "")
	f.Add("redis://u:a/", "#b@[::1]:1/2?pool_size=1")
	for url := range malformed {
		before, after, _ := strings.Cut(url, canary)
		f.Add(before, after)
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		// Whatever surrounds it, as long as it stands before the @ of the hosts it may be the password.
		o, err := redisclient.ParseURL("redis://user:" + before + canary + after + "@h:1")
		fmt.Fprintf(io.Discard, "%v", o)
		if err != nil {
			noCanary(t, err)
			return
		}
		noCanary(t, *o)
	})
}
