package redisclient

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// defaultPort is added to addresses that name none.
	defaultPort = "6379"

	// reloadInterval is how old a cluster client's picture of the cluster gets. A reload is CLUSTER SLOTS and CLUSTER NODES
	// to one node, in the background, and only when there are calls: one a second per process.
	reloadInterval = time.Second

	// dialTimeout survives one lost SYN, which is sent again after a second, and a TLS handshake.
	dialTimeout = 2 * time.Second

	// ioTimeout bounds the wait for an answer when the context has no deadline. Redis answers within a millisecond; forks
	// and slow disks hold it up for a second at times.
	ioTimeout = 2 * time.Second

	// poolTimeout is the wait for a free connection. All being busy for a second means that Redis is in trouble, and more
	// waiting callers would be more trouble.
	poolTimeout = time.Second

	// idleTimeout is below the 350 seconds after which the load balancers of clouds forget a connection without telling.
	idleTimeout = 5 * time.Minute

	// noRetries: go-redis repeats any command, also one that must not run twice. A cluster client follows redirections
	// and repeats after broken connections none the less.
	noRetries = -1

	// dialerRetries is the number of dials in one attempt, the first included.
	dialerRetries = 1

	minBackoff = 10 * time.Millisecond
	maxBackoff = 300 * time.Millisecond
)

// poolSize is the number of connections per server: enough that a burst does not wait, few enough that a hundred processes
// stay far below the 10,000 clients that a server takes by default. It is the limit, too: who finds none free waits for
// PoolTimeout. (MaxActiveConns stays unset: it would make Subscribe fail when the pool is full.)
func poolSize() int { return max(16, 8*runtime.GOMAXPROCS(0)) }

// Options returns the options for these servers: "host:port", or "host" for port 6379; elements may hold several, separated
// by commas, as REDIS_ADDRS does. More than one address means a Redis Cluster, of which some nodes suffice. No address means
// 127.0.0.1:6379. A URL is not an address: see [ParseURL].
//
// The options may be changed before they go to [New]:
//
//	ContextTimeoutEnabled     true     the deadline of the context holds
//	DialTimeout               2s       survives one lost packet
//	ReadTimeout               2s       for calls whose context has no deadline
//	WriteTimeout              2s       as above
//	PoolSize                  16 or 8 per CPU, per server
//	PoolTimeout               1s       the wait for a free connection
//	ConnMaxIdleTime           5m       below what load balancers allow
//	MaxRetries                -1       none: go-redis would also repeat commands that must not run twice
//	DialerRetries             1        one dial per attempt, not five
//	MinRetryBackoff           10ms     between the attempts of a cluster client
//	MaxRetryBackoff           300ms    as above
//	MaintNotificationsConfig  off      see below
//
// Notifications of maintenance are what hosted Redis sends. By default go-redis asks each server for them when it connects,
// and notes a refusal in options that a Conn shares with its client: a data race. Set MaintNotificationsConfig to have them.
func Options(addrs ...string) *redis.UniversalOptions {
	o := &redis.UniversalOptions{}
	for _, element := range addrs {
		for addr := range strings.SplitSeq(element, ",") {
			if addr = strings.TrimSpace(addr); addr != "" {
				o.Addrs = append(o.Addrs, withPort(addr))
			}
		}
	}
	if slices.ContainsFunc(o.Addrs, func(addr string) bool { return strings.ContainsAny(addr, "@") || strings.Contains(addr, "://") }) {
		// The address would be part of each dial's error, and with it the password.
		for i := range o.Addrs {
			o.Addrs[i] = "url-given-as-address.invalid:" + defaultPort
		}
		o.Dialer = func(context.Context, string, string) (net.Conn, error) { return nil, errURLAsAddress }
	}
	harden(o)
	return o
}

var errURLAsAddress = errors.New("redisclient: an address given to Options is a URL; use ParseURL")

func withPort(addr string) string {
	if strings.HasPrefix(addr, "/") { // a Unix socket
		return addr
	}
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), defaultPort)
}

// harden fills the fields that are not set.
func harden(o *redis.UniversalOptions) {
	o.ContextTimeoutEnabled = true
	fill(&o.DialTimeout, dialTimeout)
	fill(&o.ReadTimeout, ioTimeout)
	fill(&o.WriteTimeout, ioTimeout)
	fill(&o.PoolSize, poolSize())
	fill(&o.PoolTimeout, poolTimeout)
	fill(&o.ConnMaxIdleTime, idleTimeout)
	fill(&o.MaxRetries, noRetries)
	fill(&o.DialerRetries, dialerRetries)
	fill(&o.MinRetryBackoff, minBackoff)
	fill(&o.MaxRetryBackoff, maxBackoff)
	fill(&o.MaintNotificationsConfig, &maintnotifications.Config{Mode: maintnotifications.ModeDisabled})
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// New returns a client: for a Redis Cluster when there is more than one address or IsClusterMode is set, for a master watched by
// Sentinel when MasterName is set, else for one server. It does no I/O. The caller closes it.
//
// Fields that are zero get the values of [Options], so options made by hand are as good; nil stands for Options(). Deadlines
// of contexts are always honoured, and a cluster client reloads the layout of the cluster once a second.
func New(o *redis.UniversalOptions) redis.UniversalClient {
	if o == nil {
		o = Options()
	}
	own := *o
	own.Addrs = slices.Clone(o.Addrs)
	harden(&own)
	if own.Dialer == nil && own.TLSConfig != nil {
		own.Dialer = tlsDialer(own.TLSConfig, own.DialTimeout)
	}
	if own.MasterName == "" && (len(own.Addrs) > 1 || own.IsClusterMode) {
		cluster := own.Cluster()
		cluster.ClusterStateReloadInterval = reloadInterval
		picture := new(layout)
		cluster.NewClient = func(o *redis.Options) *redis.Client {
			node := redis.NewClient(o)
			node.AddHook(picture.hook(node))
			return node
		}
		return redis.NewClusterClient(cluster)
	}
	return redis.NewUniversalClient(&own)
}

// tlsDialer gives the handshake up with the context; go-redis's own only does so after DialTimeout.
func tlsDialer(config *tls.Config, timeout time.Duration) func(context.Context, string, string) (net.Conn, error) {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: timeout}, Config: config}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return dialer.DialContext(ctx, network, addr)
	}
}
