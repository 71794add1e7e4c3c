package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// Server is what a master says of itself.
type Server struct {
	// Addr is its address.
	Addr string `json:"addr"`
	// MemoryUsedBytes counts against MemoryMaxBytes.
	MemoryUsedBytes int64 `json:"memory_used_bytes"`
	// MemoryMaxBytes is its limit; 0 for none.
	MemoryMaxBytes int64 `json:"memory_max_bytes"`
	// MemoryRatio is used by max. Nil where there is no limit.
	MemoryRatio *float64 `json:"memory_ratio"`
	// Policy is its maxmemory-policy.
	Policy string `json:"policy"`
	// EvictedKeys counts since it started.
	EvictedKeys int64 `json:"evicted_keys"`
	// Breaker says whether this process leaves it alone now because it failed.
	Breaker string `json:"breaker"`
	// Heard says whether it tells this process what changes.
	Heard bool `json:"heard"`
	// Warnings say what will hurt, and what to do.
	Warnings []string `json:"warnings,omitempty"`
	// Error says why it could not be asked; then the numbers are 0.
	Error string `json:"error,omitempty"`
}

// Servers asks every master, each for a second at most, and says what will hurt. What could not be asked is in the report
// with its Error.
func (s *Store) Servers(ctx context.Context) ([]Server, error) {
	if s.rdb == nil {
		return nil, nil
	}
	shared := s.neighbours(ctx)
	var mu sync.Mutex
	var servers []Server
	err := redisclient.EachMaster(ctx, s.rdb, func(ctx context.Context, node *redis.Client) error {
		ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
		defer cancel()
		server := Server{Addr: node.Options().Addr, Breaker: "closed"}
		s.coverage.mu.Lock()
		if g := s.coverage.byAddr[server.Addr]; g != nil {
			server.Breaker = g.breaker.State().String()
		}
		c := s.coverage.claims[server.Addr].cover
		s.coverage.mu.Unlock()
		server.Heard = c != nil && int64(s.now())-c.heard.Load() <= int64(s.coverage.silence)
		text, err := node.Info(ctx).Result()
		if err != nil {
			server.Error = err.Error()
		} else {
			server.fill(parseInfo(text), shared)
		}
		mu.Lock()
		defer mu.Unlock()
		servers = append(servers, server)
		return nil
	})
	slices.SortFunc(servers, func(a, b Server) int { return strings.Compare(a.Addr, b.Addr) })
	return servers, err
}

func (s *Server) fill(i info, shared []string) {
	s.MemoryUsedBytes, s.MemoryMaxBytes = int64(i.used), int64(i.max)
	s.Policy, s.EvictedKeys = i.policy, int64(i.evicted)
	if i.max > 0 {
		ratio := i.used / i.max
		s.MemoryRatio = &ratio
	}
	s.Warnings = memoryWarnings(i, shared)
}

// memoryWarnings says what a server's policy does to the cache and to those who share the server. Without a limit nothing
// is evicted, and nothing refused.
func memoryWarnings(i info, shared []string) (warnings []string) {
	if i.max == 0 {
		if len(shared) > 0 {
			return []string{fmt.Sprintf("the cache shares the server with %s, and maxmemory is not set: the cache can take the memory of all; give the cache a Redis of its own, or set maxmemory", strings.Join(shared, " and "))}
		}
		return nil
	}
	switch {
	case i.policy == "noeviction":
		warnings = append(warnings, "maxmemory-policy noeviction: when memory is full nothing can be cached any more, until TTLs end; set an evicting policy where the cache is alone")
	case strings.HasPrefix(i.policy, "allkeys-") && len(shared) > 0:
		warnings = append(warnings, fmt.Sprintf("maxmemory-policy %s evicts keys of %s when the cache fills the memory: jobs are lost, users are logged out; give the cache a Redis of its own", i.policy, strings.Join(shared, " and ")))
	case strings.HasPrefix(i.policy, "volatile-") && slices.Contains(shared, sessionsName):
		warnings = append(warnings, fmt.Sprintf("maxmemory-policy %s evicts sessions, which have a TTL, when the cache fills the memory: users are logged out; give the cache a Redis of its own", i.policy))
	}
	return warnings
}

// sampleBatch is how many keys of a server are looked at in a step.
const sampleBatch = 500

const (
	queuesName   = "queues (asynq:*)"
	sessionsName = "sessions (scs:session:*)"
)

// neighbours names those who share the Redis and lose data when it evicts. Sessions are looked for in a sample of keys.
func (s *Store) neighbours(ctx context.Context) (names []string) {
	var queues sync.WaitGroup
	queues.Go(func() { // meanwhile: its master may hang
		ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
		defer cancel()
		if n, err := s.rdb.Exists(ctx, "asynq:queues").Result(); err == nil && n > 0 {
			names = append(names, queuesName)
		}
	})
	found := errors.New("found")
	err := redisclient.EachMaster(ctx, s.rdb, func(ctx context.Context, node *redis.Client) error {
		ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
		defer cancel()
		var cursor uint64
		for range 4 {
			keys, next, err := node.Scan(ctx, cursor, "scs:session:*", sampleBatch).Result()
			if err != nil {
				return err
			}
			if len(keys) > 0 {
				return found
			}
			if cursor = next; cursor == 0 {
				break
			}
		}
		return nil
	})
	queues.Wait()
	if errors.Is(err, found) {
		names = append(names, sessionsName)
	}
	return names
}

// warnOnce logs at the start what will hurt later.
func (s *Store) warnOnce(ctx context.Context) {
	servers, err := s.Servers(ctx)
	if err != nil {
		s.in.failed(ctx, "servers", err)
	}
	for _, server := range servers {
		for _, warning := range server.Warnings {
			s.opts.Logger.WarnContext(ctx, "cache: this Redis will hurt when its memory is full", "server", server.Addr, "warning", warning)
		}
	}
}
