package queue

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// cut is a client that loses an answer: when a command has these bytes in it, Redis does it, and then the connection breaks.
type cut struct {
	redis.UniversalClient
	marker string
	armed  atomic.Bool
	sent   atomic.Int64 // since it was armed
	then   func()
	mute   bool // it is broken before, and Redis hears nothing
}

type cutConn struct {
	net.Conn
	of   *cut
	mine bool
}

// newCut makes one that loses nothing until it is armed.
func newCut(t *testing.T, addrs []string, marker string) *cut {
	t.Helper()
	c := &cut{marker: marker}
	o := redisclient.Options(addrs...)
	o.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &cutConn{Conn: conn, of: c}, nil
	}
	c.UniversalClient = redisclient.New(o)
	t.Cleanup(func() { c.UniversalClient.Close() })
	return c
}

func (c *cutConn) Write(b []byte) (int, error) {
	if c.of.armed.Load() && bytes.Contains(b, []byte(c.of.marker)) {
		c.mine = c.of.sent.Add(1) == 1
		if c.mine && c.of.mute {
			c.mine = false
			c.Conn.Close()
			return 0, io.EOF
		}
	}
	return c.Conn.Write(b)
}

func (c *cutConn) Read(b []byte) (int, error) {
	if !c.mine {
		return c.Conn.Read(b)
	}
	c.mine = false
	_, _ = c.Conn.Read(b)
	c.Conn.Close()
	if c.of.then != nil {
		c.of.then()
	}
	return 0, io.EOF
}

// onBothCut runs a test on a plain server and on a cluster, with a client that loses the first answer of some scripts, which Redis knows.
func onBothCut(t *testing.T, marker string, test func(t *testing.T, plain redis.UniversalClient, rdb *cut)) {
	onBoth(t, func(t *testing.T, plain redis.UniversalClient) {
		for _, s := range []*redis.Script{purgeScript, moveScript, retryScript, reapScript, endScript, doneScript, popScript} {
			if err := s.Load(t.Context(), plain).Err(); err != nil {
				t.Fatal(err)
			}
		}
		addrs := single.Get(t).Addrs()
		if _, many := plain.(*redis.ClusterClient); many {
			addrs = cluster.Get(t).Addrs()
		}
		test(t, plain, newCut(t, addrs, marker))
	})
}

// byDigest hands a script that is sent once to a client of a test's that looks at scripts.
func byDigest(ctx context.Context, rdb redis.UniversalClient, cmd redis.Cmder, evalSha func(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd) error {
	sent, ok := cmd.(onceCmd)
	if !ok || sent.Name() != "evalsha" {
		return rdb.Process(ctx, cmd)
	}
	n := sent.Args()[2].(int)
	keys := make([]string, n)
	for i := range keys {
		keys[i] = sent.Args()[3+i].(string)
	}
	got := evalSha(ctx, sent.Args()[1].(string), keys, sent.Args()[3+n:]...)
	sent.SetVal(got.Val())
	sent.SetErr(got.Err())
	return got.Err()
}

// nodeHook answers scripts in the place of a server of a cluster.
type nodeHook func(cmd redis.Cmder) error

func (nodeHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (n nodeHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := n(cmd); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

func (nodeHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// answer is an error of Redis's.
type answer string

func (a answer) Error() string { return string(a) }

// RedisError makes it one.
func (answer) RedisError() {}

// A script whose lost answer is not asked for again is sent again when Redis has certainly not done it, and to a server that does not
// know it.
func TestWhatIsUndoneIsSentAgain(t *testing.T) {
	t.Parallel()
	for name, why := range map[string]error{
		"loading":      answer("LOADING Redis is loading the dataset in memory"),
		"cluster down": answer("CLUSTERDOWN The cluster is down"),
		"try again":    answer("TRYAGAIN Multiple keys request during rehashing of slot"),
		"no pool":      redis.ErrPoolTimeout,
		"no dial":      &net.OpError{Op: "dial", Err: io.ErrUnexpectedEOF},
		"unknown":      answer("NOSCRIPT No matching script. Please use EVAL."),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, q := client(t, cluster.Get(t).Addrs()), fresh("undone")
			var calls atomic.Int64
			rdb.(*redis.ClusterClient).OnNewNode(func(node *redis.Client) {
				node.AddHook(nodeHook(func(cmd redis.Cmder) error {
					if args := cmd.Args(); len(args) > 1 && args[1] == moveScript.Hash() && calls.Add(1) == 1 {
						return why
					}
					return nil
				}))
			})
			j := newJobs(t, rdb, nil, Queue{Name: q})
			enqueue(t, j, q, 3)
			if n, err := j.Park(t.Context(), q); n != 3 || err != nil || calls.Load() == 0 {
				t.Errorf("Park = %d, %v, after %d calls", n, err, calls.Load())
			}
		})
	}
}

// A script that the server does not know, and that is sent whole, is not sent twice either.
func TestUnknownScriptIsSentOnce(t *testing.T) {
	t.Parallel()
	q := fresh("whole")
	rdb := newCut(t, cluster.Get(t).Addrs(), "$4\r\neval\r\n")
	rdb.UniversalClient.(*redis.ClusterClient).OnNewNode(func(node *redis.Client) {
		node.AddHook(nodeHook(func(cmd redis.Cmder) error {
			if args := cmd.Args(); len(args) > 1 && args[1] == moveScript.Hash() {
				return answer("NOSCRIPT No matching script. Please use EVAL.")
			}
			return nil
		}))
	})
	j := newJobs(t, rdb.UniversalClient, nil, Queue{Name: q})
	if err := sizeScript.Load(t.Context(), rdb.UniversalClient).Err(); err != nil {
		t.Fatal(err)
	}
	enqueue(t, j, q, 3)
	rdb.armed.Store(true)
	n, err := j.Park(t.Context(), q)
	if n != 0 || err == nil || answered(err) || rdb.sent.Load() != 1 {
		t.Errorf("Park = %d, %v, sent %d times", n, err, rdb.sent.Load())
	}
}
