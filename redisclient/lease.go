package redisclient

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// holdScript takes or keeps a lease. KEYS: lease; ARGV: holder, ttl in ms
var holdScript = redis.NewScript(`
local holder = redis.call("GET", KEYS[1])
if holder and holder ~= ARGV[1] then
	return 0
end
redis.call("PEXPIRE", KEYS[1], ARGV[2]) -- a server that is full refuses a script what takes memory before it has written
redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])
return 1`)

// releaseScript gives a lease up if it is still the holder's. KEYS: lease; ARGV: holder
var releaseScript = redis.NewScript(`
if redis.call("GET", KEYS[1]) == ARGV[1] then
	return redis.call("DEL", KEYS[1])
end
return 0`)

// Lease is a key that one process of a fleet holds at a time, to do what is enough once. By itself it saves work and
// guards nothing: a process that stands still for longer than the lease's length does not notice that it has lost it, and when
// a master dies two may hold it for a moment.
type Lease struct {
	client redis.UniversalClient
	key    string
	holder string
	length time.Duration
}

// NewLease makes a lease on key. Each Lease is a holder of its own, also within one process. length is how long it
// lasts after the last Hold.
func NewLease(client redis.UniversalClient, key string, length time.Duration) *Lease {
	return &Lease{client: client, key: key, holder: rand.Text(), length: length}
}

// Key is the lease's key. While the lease is ours its value is Holder, so that a script in the same slot can write on
// condition that it still is.
func (l *Lease) Key() string { return l.key }

// Holder is random, and no other Lease has the same.
func (l *Lease) Holder() string { return l.holder }

// Hold takes the lease if nobody has it, or keeps it, and reports whether it is ours now. It does so on a server that is full,
// too.
func (l *Lease) Hold(ctx context.Context) (bool, error) {
	n, err := holdScript.Run(ctx, l.client, []string{l.key}, l.holder, l.length.Milliseconds()).Int()
	if err != nil {
		return false, fmt.Errorf("redisclient: hold lease %s: %w", l.key, err)
	}
	return n == 1, nil
}

// Release gives the lease up. Releasing what others hold changes nothing.
func (l *Lease) Release(ctx context.Context) error {
	if err := releaseScript.Run(ctx, l.client, []string{l.key}, l.holder).Err(); err != nil {
		return fmt.Errorf("redisclient: release lease %s: %w", l.key, err)
	}
	return nil
}
