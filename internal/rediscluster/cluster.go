package rediscluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

// Cluster is a running set of servers.
type Cluster struct {
	opts   Options
	home   *localserver.Home
	binary string
	env    []string
	nodes  []*Node

	migrates sync.Mutex // held while a master sends keys to another
}

// Shared is one cluster for all tests of a package; see [localserver.Shared].
type Shared = localserver.Shared[*Cluster]

// NewShared returns a Shared that starts a cluster with these options when the first test asks for it.
func NewShared(opts *Options) *Shared {
	return localserver.NewShared(func(ctx context.Context) (*Cluster, error) { return Start(ctx, opts) })
}

// Start starts the servers and waits until they are healthy. Nil options are legal. The error matches
// [localserver.ErrNotInstalled] when there is no redis-server. The caller closes the cluster.
func Start(ctx context.Context, opts *Options) (*Cluster, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: o}
	if c.binary, c.env, err = localserver.Find("redis-server"); err != nil {
		return nil, err
	}
	if c.home, err = localserver.Open(nil); err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	for i := range c.opts.Nodes {
		n, err := newNode(c, i)
		if err != nil {
			return err
		}
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		if err := n.launch(ctx); err != nil {
			return err
		}
	}
	if err := c.each((*Node).answers, ctx); err != nil {
		return err
	}
	if len(c.nodes) == 1 {
		return nil
	}
	if err := c.form(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, c.Logs())
	}
	return nil
}

// Close ends the servers and removes their files. It may be called twice.
func (c *Cluster) Close() error {
	var errs []error
	for _, n := range c.nodes {
		if err := n.client.Close(); err != nil && err.Error() != "redis: client is closed" {
			errs = append(errs, err)
		}
	}
	errs = append(errs, c.home.Close())
	for _, n := range c.nodes {
		n.mu.Lock()
		n.forgetClock()
		n.mu.Unlock()
	}
	return errors.Join(errs...)
}

// Nodes are all nodes, those that do not run included; the order is fixed and says nothing of roles.
func (c *Cluster) Nodes() []*Node { return slices.Clone(c.nodes) }

// Addrs are the addresses of all nodes.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addrs[i] = n.Addr()
	}
	return addrs
}

// Logs is the end of every server's log.
func (c *Cluster) Logs() string {
	var b strings.Builder
	for _, n := range c.nodes {
		fmt.Fprintf(&b, "--- %s at %s\n%s", n.name, n.Addr(), n.Log())
	}
	return b.String()
}

// Flush deletes all data, on all masters.
func (c *Cluster) Flush(ctx context.Context) error {
	masters, err := c.Masters(ctx)
	if err != nil {
		return err
	}
	for _, n := range masters {
		if err := n.client.FlushAll(ctx).Err(); err != nil {
			return fmt.Errorf("rediscluster: flush %s: %w", n.name, err)
		}
	}
	return nil
}

// each calls f for all nodes at once.
func (c *Cluster) each(f func(*Node, context.Context) error, ctx context.Context) error {
	errs := make([]error, len(c.nodes))
	var wg sync.WaitGroup
	for i, n := range c.nodes {
		wg.Go(func() { errs[i] = f(n, ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
