package redisclient

import (
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Describe says in one line what a client connects to, for a log: its kind, its addresses, its database, TLS. It shows neither
// user nor password, and does no I/O.
func Describe(c redis.UniversalClient) string {
	var text string
	var tls bool
	switch c := c.(type) {
	case *redis.Client:
		o := c.Options()
		text, tls = fmt.Sprintf("Redis at %s, database %d", o.Addr, o.DB), o.TLSConfig != nil
		if o.Addr == "FailoverClient" { // go-redis's own mark
			text = fmt.Sprintf("Redis behind Sentinel, database %d", o.DB)
		}
	case *redis.ClusterClient:
		o := c.Options()
		text, tls = "Redis Cluster at "+strings.Join(o.Addrs, ", "), o.TLSConfig != nil
	default:
		return fmt.Sprintf("Redis through a %T", c)
	}
	if tls {
		text += ", TLS"
	}
	return text
}
