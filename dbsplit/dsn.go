package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Nodes are the connection strings of one PostgreSQL cluster's servers, as URLs or as keywords and values. Each
// names one server. Beside what pgx takes, a connection string may say, for this package alone:
//
//   - node_zone: where the server is. See Options.Zone.
//   - node_weight: its share of the reads, from 1 to 100, in proportion to the other replicas'. 10 when absent.
//   - node_pooler: transaction, transaction-prepared or session, the mode of the PgBouncer that stands before the server. See
//     the section on poolers.
//   - node_addr: the IP address to connect to instead of looking the host up. TLS still verifies the host.
type Nodes struct {
	// Primary takes writes, and the reads that no replica can serve.
	Primary string
	// Replicas are streaming replicas of Primary. Empty means that the primary serves all reads.
	Replicas []string
}

type endpoint struct {
	name   string // host:port, without user and password
	config *pgxpool.Config
	zone   string
	weight int
	pooler pooler
}

const (
	defaultWeight = 10
	maxWeight     = 100
)

// parse returns the primary's endpoint first, or all mistakes joined. No error contains any part of a connection
// string except a host and port that were understood: pgx redacts its own errors on a best-effort basis only.
func (n Nodes) parse() ([]endpoint, error) {
	var errs []error
	var endpoints []endpoint
	seen := make(map[string]string)
	for i, dsn := range append([]string{n.Primary}, n.Replicas...) {
		field := "Nodes.Primary"
		if i > 0 {
			field = fmt.Sprintf("Nodes.Replicas[%d]", i-1)
		}
		e, err := parseDSN(dsn)
		if err != nil {
			errs = append(errs, fmt.Errorf("dbsplit: %s %w", field, err))
			continue
		}
		if first, ok := seen[e.name]; ok {
			errs = append(errs, fmt.Errorf("dbsplit: %s names the same server as %s, %s: name each server once", field, first, e.name))
			continue
		}
		seen[e.name] = field
		endpoints = append(endpoints, e)
	}
	return endpoints, errors.Join(errs...)
}

func parseDSN(dsn string) (endpoint, error) {
	if strings.TrimSpace(dsn) == "" {
		return endpoint{}, errors.New("is empty: give a connection string like postgres://user@host:5432/database, or leave the entry out")
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return endpoint{}, errors.New("is no connection string: " + dsnMistake(err))
	}
	c := config.ConnConfig
	name := net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
	for _, f := range c.Fallbacks {
		if f.Host != c.Host || f.Port != c.Port {
			return endpoint{}, fmt.Errorf("names several servers, %s and others: give each server as a node of its own", name)
		}
	}
	e := endpoint{name: name, config: config}
	return e, errors.Join(e.takeParams(), e.suit(dsn))
}

// takeParams takes our own parameters out of those that would be sent to the server.
func (e *endpoint) takeParams() error {
	c := e.config.ConnConfig
	take := func(name string) string {
		value := c.RuntimeParams[name]
		delete(c.RuntimeParams, name)
		return value
	}
	e.zone = take("node_zone")
	weight, mode, addr := take("node_weight"), take("node_pooler"), take("node_addr")
	e.weight = defaultWeight
	var errs []error
	if weight != "" {
		n, err := strconv.Atoi(weight)
		if err != nil || n < 1 || n > maxWeight {
			errs = append(errs, fmt.Errorf("has a node_weight that is no number from 1 to %d", maxWeight))
		}
		e.weight = n
	}
	switch e.pooler = pooler(mode); e.pooler {
	case poolerNone, poolerSession, poolerTransaction, poolerPrepared:
	default:
		errs = append(errs, errors.New("has an unknown node_pooler, want session, transaction or transaction-prepared"))
	}
	if addr != "" {
		ip, err := netip.ParseAddr(addr)
		if err != nil {
			return errors.Join(append(errs, errors.New("has a node_addr that is no IP address"))...)
		}
		e.name = net.JoinHostPort(ip.String(), strconv.Itoa(int(c.Port)))
		c.LookupFunc = func(context.Context, string) ([]string, error) { return []string{ip.String()}, nil }
	}
	return errors.Join(errs...)
}

// dsnMistake names the parameter that pgx could not take, and nothing that it quoted.
func dsnMistake(err error) string {
	text := err.Error()
	for _, known := range []string{
		"sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "target_session_attrs", "service",
		"pool_max_conns", "pool_min_conns", "pool_min_idle_conns", "pool_max_conn_lifetime", "pool_max_conn_idle_time",
		"pool_health_check_period", "pool_ping_timeout", "invalid port", "keyword/value",
	} {
		_, reason, _ := strings.Cut(text, "`:") // what follows the quoted string
		if strings.Contains(reason, known) {
			return "look at " + known
		}
	}
	return "want postgres://user:password@host:port/database?sslmode=…, with special characters in the password percent-encoded"
}
