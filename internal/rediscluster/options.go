package rediscluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options says which servers [Start] runs.
type Options struct {
	// Nodes is 1, a plain server that is no cluster, or 6, a cluster of three masters with one replica each.
	// Zero means 6.
	Nodes int

	// Config is added to the configuration of every server, as in redis.conf: directive and value. It overrides ours.
	// With requirepass the servers also use the password among themselves. Zero means nothing is added.
	Config map[string]string

	// Clocks are how far the servers' clocks are ahead of the machine's at their start, in the order of Nodes; those left out
	// are right. [Node.SetClock] sets them later: a server of a cluster whose clock is set back may be of no use for as long.
	// The servers then run under libfaketime. Zero means that the clocks are the machine's and are not set.
	Clocks []time.Duration
}

// reserved are the directives on which this package relies.
var reserved = []string{"port", "bind", "dir", "cluster-port", "cluster-enabled", "cluster-config-file", "daemonize", "logfile"}

func (o *Options) withDefaults() (Options, error) {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Nodes == 0 {
		out.Nodes = 6
	}
	var errs []error
	if out.Nodes != 1 && out.Nodes != 6 {
		errs = append(errs, fmt.Errorf("rediscluster: Options.Nodes is %d; set 1 or 6", out.Nodes))
	}
	for _, directive := range slices.Sorted(maps.Keys(out.Config)) {
		if slices.Contains(reserved, strings.ToLower(directive)) {
			errs = append(errs, fmt.Errorf("rediscluster: Options.Config sets %q, which is chosen here; leave it out", directive))
		}
	}
	out.Config = maps.Clone(out.Config)
	return out, errors.Join(errs...)
}

// conf renders redis.conf of one server.
func (o *Options) conf(n *Node) string {
	settings := map[string]string{
		"save":                 "",
		"appendonly":           "no",
		"enable-debug-command": "local",
		"repl-diskless-sync":   "no", // see TestHealthyIsReplicated
	}
	if o.Nodes > 1 {
		settings["cluster-enabled"] = "yes"
		settings["cluster-node-timeout"] = "2000"
		settings["cluster-config-file"] = "nodes.conf"
		// Always set: the default, port+10000, does not exist above 55535, and it might be in use.
		settings["cluster-port"] = strconv.Itoa(n.bus)
	}
	for directive, value := range o.Config {
		settings[strings.ToLower(directive)] = value
	}
	if password, ok := settings["requirepass"]; ok && settings["masterauth"] == "" {
		settings["masterauth"] = password
	}
	settings["port"] = strconv.Itoa(n.port)
	settings["bind"] = "127.0.0.1"
	settings["dir"] = n.dir
	var b strings.Builder
	for _, directive := range slices.Sorted(maps.Keys(settings)) {
		value := settings[directive]
		if value == "" || directive == "dir" || directive == "requirepass" || directive == "masterauth" {
			value = strconv.Quote(value)
		}
		fmt.Fprintf(&b, "%s %s\n", directive, value)
	}
	return b.String()
}
