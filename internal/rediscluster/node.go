package rediscluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

// Node is one Redis server.
type Node struct {
	cluster *Cluster
	name    string
	port    int
	bus     int
	dir     string
	id      string // of the cluster; empty for a single server
	client  *redis.Client

	mu      sync.Mutex
	process *localserver.Process
	frozen  bool
}

func newNode(c *Cluster, number int) (*Node, error) {
	n := &Node{cluster: c, name: "redis" + strconv.Itoa(number)}
	var err error
	if n.port, err = c.home.Port(); err != nil {
		return nil, err
	}
	if n.bus, err = c.home.Port(); err != nil {
		return nil, err
	}
	if n.dir, err = c.home.Mkdir(n.name); err != nil {
		return nil, err
	}
	if err := os.WriteFile(n.conf(), []byte(c.opts.conf(n)), 0o600); err != nil {
		return nil, fmt.Errorf("rediscluster: %w", err)
	}
	if clocks := c.opts.Clocks; clocks != nil {
		ahead := time.Duration(0)
		if number < len(clocks) {
			ahead = clocks[number]
		}
		if err := n.SetClock(ahead); err != nil {
			return nil, err
		}
	}
	n.client = redis.NewClient(&redis.Options{
		Addr:                  n.Addr(),
		Password:              c.opts.Config["requirepass"],
		ContextTimeoutEnabled: true,
		DialTimeout:           answerWithin,
		ReadTimeout:           answerWithin,
		WriteTimeout:          answerWithin,
		PoolTimeout:           answerWithin,
		MaxRetries:            -1,
		DialerRetries:         1,
		PoolSize:              4,
		PipelinePoolSize:      -1,
		DisableIdentity:       true,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	})
	return n, nil
}

func (n *Node) conf() string { return filepath.Join(n.dir, "redis.conf") }

// Addr is the node's "host:port".
func (n *Node) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port)) }

// ID is the node's name in CLUSTER NODES; empty for a single server.
func (n *Node) ID() string { return n.id }

// Client is a plain client of this node alone, with deadlines of one second and without retries. It is closed with the cluster.
func (n *Node) Client() *redis.Client { return n.client }

// Log is the end of the server's log.
func (n *Node) Log() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return ""
	}
	return n.process.Log()
}

// Start starts the node's server again after Kill, on the same address, and waits until it answers. It does not wait for the
// cluster: see [Cluster.WaitHealthy].
func (n *Node) Start(ctx context.Context) error {
	if err := n.launch(ctx); err != nil {
		return err
	}
	return n.answers(ctx)
}

func (n *Node) launch(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil && !ended(n.process) {
		return fmt.Errorf("rediscluster: %s at %s already runs", n.name, n.Addr())
	}
	env := n.cluster.env
	if n.cluster.opts.Clocks != nil {
		clocks, err := n.clocks()
		if err != nil {
			return err
		}
		n.forgetClock()
		env = slices.Concat(env, clocks)
	}
	process, err := n.cluster.home.Start(ctx, localserver.Config{
		Name: n.name,
		Path: n.cluster.binary,
		Args: []string{n.conf()},
		Env:  env,
		Dir:  n.dir,
	})
	if err != nil {
		return fmt.Errorf("rediscluster: %w", err)
	}
	n.process, n.frozen = process, false
	return nil
}

func (n *Node) answers(ctx context.Context) error {
	n.mu.Lock()
	process := n.process
	n.mu.Unlock()
	err := poll(ctx, func() error {
		if ended(process) {
			return final{errors.New("the server has ended")}
		}
		return n.client.Ping(ctx).Err()
	})
	if err != nil {
		return fmt.Errorf("rediscluster: start %s at %s: %w\n%s", n.name, n.Addr(), err, n.Log())
	}
	return nil
}

// Running says whether the server's process is there and not frozen.
func (n *Node) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process != nil && !ended(n.process) && !n.frozen
}

// Kill ends the server with SIGKILL and returns when it is gone, with its data. It is nothing when the server does not run.
func (n *Node) Kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		n.process.Kill()
		n.forgetClock()
	}
}

// Freeze stops the server with SIGSTOP: connections stay open and new ones are accepted by the kernel, nobody answers.
func (n *Node) Freeze() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process.Freeze()
	n.frozen = true
}

// Thaw undoes Freeze.
func (n *Node) Thaw() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process.Thaw()
	n.frozen = false
}

// Fill makes a server that is no part of a cluster full: it refuses what may need room.
func (n *Node) Fill(ctx context.Context) error {
	if err := n.SetMaxMemory(ctx, 1, "noeviction"); err != nil {
		return err
	}
	if err := n.client.Set(ctx, "more", 1, 0).Err(); !redis.HasErrorPrefix(err, "OOM") {
		return fmt.Errorf("rediscluster: %s should be full and answers SET with %v", n.name, err)
	}
	return nil
}

// SetMaxMemory sets maxmemory in bytes (0 is unlimited) and the policy, for instance "noeviction" or "allkeys-lru"; an empty
// policy leaves it as it is.
func (n *Node) SetMaxMemory(ctx context.Context, bytes int64, policy string) error {
	settings := []string{"maxmemory", strconv.FormatInt(bytes, 10)}
	if policy != "" {
		settings = append(settings, "maxmemory-policy", policy)
	}
	args := []any{"config", "set"}
	for _, s := range settings {
		args = append(args, s)
	}
	if err := n.client.Do(ctx, args...).Err(); err != nil {
		return fmt.Errorf("rediscluster: set %s on %s: %w", strings.Join(settings, " "), n.name, err)
	}
	return nil
}

// view asks the node what it thinks of the cluster.
func (n *Node) view(ctx context.Context) (*view, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	text, err := n.client.ClusterNodes(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("rediscluster: %s: %w", n.name, err)
	}
	return parseView(text)
}

func ended(p *localserver.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

const (
	answerWithin = time.Second
	pollEvery    = 10 * time.Millisecond
)

// final is an error after which poll gives up.
type final struct{ error }

// poll calls f until it returns nil, the context ends or 30 seconds have passed.
func poll(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		if stop, ok := errors.AsType[final](err); ok {
			return stop.error
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", ctx.Err(), err)
		case <-ticker.C:
		}
	}
}
