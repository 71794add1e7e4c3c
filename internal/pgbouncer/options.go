package pgbouncer

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Modes of pooling: how long a client keeps a server connection.
const (
	Session     = "session"
	Transaction = "transaction"
)

// Options says what [Start] starts.
type Options struct {
	// Upstream is host:port of the PostgreSQL server. Required.
	Upstream string

	// Mode is Session or Transaction. Zero means PgBouncer's default, Session.
	Mode string

	// PoolSize is how many server connections one user has to one database. Zero means PgBouncer's default, 20.
	PoolSize int

	// Forgetful pools keep no prepared statements, as all do before PgBouncer 1.21. Zero means the version's default.
	Forgetful bool

	// User is the role that clients have on the server. Zero means postgres.
	User string

	// Settings are added to the section [pgbouncer]. Zero means none.
	Settings map[string]string

	// Dir is where the temporary directory is made. Zero means the system's place for such.
	Dir string
}

// reserved are the settings on which this package relies.
var reserved = []string{"listen_addr", "listen_port", "unix_socket_dir", "auth_type", "auth_file", "admin_users", "pool_mode", "default_pool_size", "logfile", "pidfile", "user"}

func (o *Options) checked() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	c.Settings = maps.Clone(c.Settings)
	var errs []error
	if _, _, err := net.SplitHostPort(c.Upstream); err != nil {
		errs = append(errs, fmt.Errorf("pgbouncer: Upstream is %q; give host:port of a PostgreSQL server", c.Upstream))
	}
	if c.Mode == "" {
		c.Mode = Session
	}
	if c.Mode != Session && c.Mode != Transaction {
		errs = append(errs, fmt.Errorf("pgbouncer: Mode is %q; give Session or Transaction", c.Mode))
	}
	if c.PoolSize < 0 {
		errs = append(errs, fmt.Errorf("pgbouncer: PoolSize is %d; give 1 or more, or 0 for the default", c.PoolSize))
	}
	if c.User == "" {
		c.User = user
	}
	for _, name := range slices.Sorted(maps.Keys(c.Settings)) {
		if slices.Contains(reserved, strings.ToLower(name)) {
			errs = append(errs, fmt.Errorf("pgbouncer: Settings has %q, which is chosen here; leave it out", name))
		}
	}
	return c, errors.Join(errs...)
}

// user is who clients log in as.
const user = "postgres"

// ini renders the configuration for a listener at port, with upstream behind it; users is the path of the users' file,
// and keepsStatements tells that this version has the setting.
func (o *Options) ini(port int, upstream, users string, keepsStatements bool) string {
	host, serverPort, _ := net.SplitHostPort(upstream) // checked
	settings := map[string]string{
		"max_client_conn": "500",
		// The default is tried again after 15 s, longer than a test waits.
		"server_login_retry": "0.1",
	}
	maps.Copy(settings, o.Settings)
	settings["listen_addr"] = "127.0.0.1"
	settings["listen_port"] = strconv.Itoa(port)
	settings["unix_socket_dir"] = "" // distributions' defaults may not be writable
	settings["auth_type"] = "trust"
	settings["auth_file"] = users
	settings["admin_users"] = user
	settings["pool_mode"] = o.Mode
	if o.Forgetful && keepsStatements {
		settings["max_prepared_statements"] = "0"
	}
	if o.PoolSize > 0 {
		settings["default_pool_size"] = strconv.Itoa(o.PoolSize)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[databases]\n* = host=%s port=%s user=%s\n[pgbouncer]\n", host, serverPort, o.User)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = %s\n", name, settings[name])
	}
	return b.String()
}
