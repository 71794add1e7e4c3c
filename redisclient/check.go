package redisclient

import (
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	slowReload   = 5 * time.Second
	longWait     = 10 * time.Second
	manyDials    = 8
	useNew       = "; make the client with redisclient.New"
	noDeadline   = "deadlines of contexts are ignored: a call to a server that hangs outlives its caller; set ContextTimeoutEnabled" + useNew
	staleLayout  = "the layout of the cluster is reloaded every %v: a killed master is called all that time; set ClusterStateReloadInterval to 1s" + useNew
	dialsPerCall = "one call dials a server that refuses connections up to %d times; set DialerRetries to 1 and MaxRetries to -1" + useNew
	replicaReads = "reads may go to replicas, which lag: sessions, locks and cache entries just written may be missing; unset ReadOnly, RouteByLatency and RouteRandomly"
)

// Check names the settings of a client that will hurt when Redis fails, one text each, which says what to do. It does no I/O.
// None: the client is as good as one from [New], or of a type that is not known.
func Check(c redis.UniversalClient) []string {
	switch c := c.(type) {
	case *redis.Client:
		if c == nil {
			return nil
		}
		o := c.Options()
		return settings{
			deadlines: o.ContextTimeoutEnabled,
			dials:     o.DialerRetries * (o.MaxRetries + 1),
			dial:      o.DialTimeout, read: o.ReadTimeout, write: o.WriteTimeout, pool: o.PoolTimeout,
		}.check()
	case *redis.ClusterClient:
		if c == nil {
			return nil
		}
		o := c.Options()
		return settings{
			deadlines: o.ContextTimeoutEnabled,
			dials:     o.DialerRetries * (max(o.MaxRetries, 0) + 1) * (o.MaxRedirects + 1),
			dial:      o.DialTimeout, read: o.ReadTimeout, write: o.WriteTimeout, pool: o.PoolTimeout,
			reload: o.ClusterStateReloadInterval, replicas: o.ReadOnly,
		}.check()
	}
	return nil
}

// settings are what a client came out with: durations of 0 are "for ever" except pool and reload, where 0 is "does not apply".
type settings struct {
	deadlines               bool
	dials                   int
	dial, read, write, pool time.Duration
	reload                  time.Duration
	replicas                bool
}

func (s settings) check() []string {
	var found []string
	add := func(wrong bool, format string, args ...any) {
		if wrong {
			found = append(found, "redisclient: "+fmt.Sprintf(format, args...))
		}
	}
	add(!s.deadlines, noDeadline)
	add(s.reload > slowReload, staleLayout, s.reload)
	add(s.dials > manyDials, dialsPerCall, s.dials)
	for _, wait := range []struct {
		field string
		value time.Duration
	}{{"DialTimeout", s.dial}, {"ReadTimeout", s.read}, {"WriteTimeout", s.write}} {
		add(wait.value <= 0, "%s is off: a call without a deadline may wait for ever; set it to 2s", wait.field)
		add(wait.value > longWait, "%s is %v: a call without a deadline waits as long; set it to 2s", wait.field, wait.value)
	}
	add(s.pool > longWait, "PoolTimeout is %v: callers pile up while all connections are busy; set it to 1s", s.pool)
	add(s.replicas, replicaReads)
	return found
}
