package redisfleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/scaleaware/scaleaware/metrics"
)

var _ metrics.SnapshotStore = (*Store)(nil)

// Store is a metrics.SnapshotStore on Redis, on one node or a cluster. It is safe for concurrent use.
type Store struct {
	client redis.UniversalClient
	base   string
}

// Options are New's options.
type Options struct {
	// Prefix begins all keys, ending in a colon, without glob characters and braces. Instances that share one report on
	// each other. Zero means "scaleaware:fleet:".
	Prefix string
}

// New makes a store on client, which stays the caller's to close.
func New(client redis.UniversalClient, opts *Options) (*Store, error) {
	o := Options{}
	if opts != nil {
		o = *opts
	}
	if o.Prefix == "" {
		o.Prefix = "scaleaware:fleet:"
	}
	var errs []error
	if client == nil {
		errs = append(errs, errors.New("redisfleet: New needs a client"))
	}
	if strings.ContainsAny(o.Prefix, `*?[]\{}`) {
		errs = append(errs, fmt.Errorf("redisfleet: Options.Prefix %q: leave out glob characters and braces, they would reach other keys or be a hash tag of its own", o.Prefix))
	}
	if len(o.Prefix) < 2 || !strings.HasSuffix(o.Prefix, ":") {
		errs = append(errs, fmt.Errorf("redisfleet: Options.Prefix %q: end it with a colon, such as \"app:fleet:\", so that no other prefix begins with it", o.Prefix))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Store{client: client, base: o.Prefix + "{snapshots}:"}, nil
}

func (s *Store) members() string { return s.base + "members" }

func (s *Store) key(instance string) string { return s.base + "of:" + instance }

// Put stores blob until ttl has passed.
func (s *Store) Put(ctx context.Context, instance string, blob []byte, ttl time.Duration) error {
	_, err := s.client.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		tx.Set(ctx, s.key(instance), blob, ttl)
		tx.SAdd(ctx, s.members(), instance)
		tx.PExpire(ctx, s.members(), 10*ttl) // All removes single members; this removes the last
		return nil
	})
	if err != nil {
		return fmt.Errorf("redisfleet: store this instance's snapshot: %w", err)
	}
	return nil
}

// All returns the snapshots that have not expired, by instance.
func (s *Store) All(ctx context.Context) (map[string][]byte, error) {
	instances, err := s.client.SMembers(ctx, s.members()).Result()
	if err != nil {
		return nil, fmt.Errorf("redisfleet: list the instances: %w", err)
	}
	blobs := make(map[string][]byte, len(instances))
	if len(instances) == 0 {
		return blobs, nil
	}
	keys := make([]string, len(instances))
	for i, instance := range instances {
		keys[i] = s.key(instance)
	}
	values, err := s.client.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, fmt.Errorf("redisfleet: read the snapshots: %w", err)
	}
	var gone []any
	for i, value := range values {
		if blob, ok := value.(string); ok {
			blobs[instances[i]] = []byte(blob)
		} else {
			gone = append(gone, instances[i])
		}
	}
	if len(gone) > 0 {
		// One that comes back at this very moment is a member again at its next Put.
		if err := s.client.SRem(ctx, s.members(), gone...).Err(); err != nil {
			return nil, fmt.Errorf("redisfleet: forget %d instances that have vanished: %w", len(gone), err)
		}
	}
	return blobs, nil
}
