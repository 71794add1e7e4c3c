package redisclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// ParseURL reads the URL of one server or of a cluster into options with the values of [Options]:
//
//	redis://user:password@host:6379/0
//	rediss://:password@host1:6379,host2:6379,host3:6379       TLS; several hosts are a cluster
//	redis://host1:6379?addr=host2:6379&addr=host3:6379        the same, as go-redis writes it
//	redis://sentinel1:26379,sentinel2:26379/0?master_name=main
//
// Parameters: addr, cluster (true: the one address belongs to a cluster), master_name, db, client_name, dial_timeout,
// read_timeout, write_timeout, pool_timeout, conn_max_idle_time (durations as 500ms), pool_size, min_idle_conns. Special
// characters in user and password are percent-encoded.
//
// The error names every mistake and no part of the URL but the names of parameters. User and password are
// not fields of the options but are given through CredentialsProviderContext, so printed options do not show them.
func ParseURL(rawURL string) (*redis.UniversalOptions, error) {
	p := &urlParser{options: &redis.UniversalOptions{}}
	p.parse(rawURL)
	if len(p.mistakes) > 0 {
		return nil, errors.Join(p.mistakes...)
	}
	harden(p.options)
	return p.options, nil
}

type urlParser struct {
	options  *redis.UniversalOptions
	mistakes []error
}

// wrong records a mistake. Its text must not repeat what the URL holds: where a password has an unescaped character, any
// part of the URL may be a part of the password.
func (p *urlParser) wrong(format string, args ...any) {
	p.mistakes = append(p.mistakes, fmt.Errorf("redisclient: "+format, args...))
}

// parse takes the URL apart by hand: url.Parse knows no lists of hosts, and its errors repeat the URL.
func (p *urlParser) parse(raw string) {
	scheme, rest, found := strings.Cut(raw, "://")
	switch {
	case found && scheme == "redis":
	case found && scheme == "rediss":
		// No ServerName: each node of a cluster is checked against the host that is dialled.
		p.options.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	default:
		p.wrong("a URL begins with redis:// or rediss://")
		return
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	if strings.ContainsAny(tail, "@#") {
		p.wrong("the URL has @ or # behind its hosts; percent-encode the characters / ? # @ in user and password, and @ in parameters")
		return
	}
	hosts := authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		p.credentials(authority[:i])
		hosts = authority[i+1:]
	}
	for host := range strings.SplitSeq(hosts, ",") {
		p.address(host)
	}
	path, query, _ := strings.Cut(tail, "?")
	if path = strings.TrimPrefix(path, "/"); path != "" {
		p.database(path)
	}
	p.parameters(query)
	if p.options.DB != 0 && p.options.MasterName == "" && (len(p.options.Addrs) > 1 || p.options.IsClusterMode) {
		p.wrong("a Redis Cluster has no database but 0; leave the number out of the URL")
	}
}

func (p *urlParser) credentials(text string) {
	name, secret, _ := strings.Cut(text, ":")
	user, err1 := url.PathUnescape(name)
	password, err2 := url.PathUnescape(secret)
	if err1 != nil || err2 != nil {
		p.wrong("user or password has a %% that is no percent-encoding; write %%25")
		return
	}
	p.options.CredentialsProviderContext = func(context.Context) (string, string, error) { return user, password, nil }
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?$`)

func (p *urlParser) address(text string) {
	host, port := text, defaultPort
	if i := strings.LastIndexByte(text, ':'); i > strings.LastIndexByte(text, ']') {
		host, port = text[:i], text[i+1:]
	}
	if host == "" {
		host = "localhost"
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner = strings.TrimSuffix(inner, "]")
		if addr, err := netip.ParseAddr(inner); err != nil || !addr.Is6() {
			p.wrong("host %d of the URL is no IPv6 address in brackets", len(p.options.Addrs)+1)
			return
		}
		host = inner
	} else if !hostName.MatchString(host) {
		p.wrong("host %d of the URL is no host name; percent-encode special characters in user and password", len(p.options.Addrs)+1)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		p.wrong("the port of host %d of the URL is no number from 1 to 65535; percent-encode special characters in user and password", len(p.options.Addrs)+1)
		return
	}
	p.options.Addrs = append(p.options.Addrs, net.JoinHostPort(host, port))
}

func (p *urlParser) database(text string) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		p.wrong("the database is no number; write redis://host:6379/0")
		return
	}
	p.options.DB = int(n)
}

func (p *urlParser) parameters(query string) {
	values, err := url.ParseQuery(query)
	if err != nil {
		p.wrong("the parameters behind ? are malformed; percent-encode special characters")
		return
	}
	durations := map[string]*time.Duration{
		"dial_timeout": &p.options.DialTimeout, "read_timeout": &p.options.ReadTimeout, "write_timeout": &p.options.WriteTimeout,
		"pool_timeout": &p.options.PoolTimeout, "conn_max_idle_time": &p.options.ConnMaxIdleTime,
	}
	counts := map[string]*int{"pool_size": &p.options.PoolSize, "min_idle_conns": &p.options.MinIdleConns}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values[name][len(values[name])-1]
		switch {
		case name == "addr":
			for _, addr := range values[name] {
				p.address(addr)
			}
		case name == "master_name":
			p.options.MasterName = value
		case name == "client_name":
			p.options.ClientName = value
		case name == "db":
			p.database(value)
		case name == "cluster":
			if p.options.IsClusterMode, err = strconv.ParseBool(value); err != nil {
				p.wrong("cluster is neither true nor false")
			}
		case durations[name] != nil:
			d, err := time.ParseDuration(value)
			if err != nil || d <= 0 {
				p.wrong("%s is no positive duration such as 500ms or 2s", name)
			}
			*durations[name] = d
		case counts[name] != nil:
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				p.wrong("%s is no number", name)
			}
			*counts[name] = int(n)
		default:
			p.wrong("unknown parameter %q; set the field of the options instead", name)
		}
	}
}
