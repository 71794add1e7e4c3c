package cachebench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/internal/localserver"
)

const bulkNote = "Time for one key, in turns with `redis-benchmark --cluster -P 100` on the same cluster, with as many keys and values of the same size: SET EX, PEXPIRE GT, whose time is for one end that moves, and UNLINK, whose time is for one key that is removed; timed by the servers' own counts, as redis-benchmark looks four times a second whether it is done. " +
	"Warm has a loader that returns at once: Load with Concurrency 64, and LoadMany, which is asked for 500 keys, with Concurrency 4. ExtendTTLs and Invalidate(\"*\") then go over what it stored."

// limit returns the ns that one command takes redis-benchmark, of so many on so many keys. It uses one slot of each master, which has
// a third of them.
func (l *lab) limit(ctx context.Context, commands, keys int, command ...string) (float64, error) {
	path, env, err := localserver.Find("redis-benchmark")
	if err != nil {
		return 0, err
	}
	host, port, err := net.SplitHostPort(l.cluster.Addrs()[0])
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	args := append([]string{"-h", host, "-p", port, "--cluster", "-P", "100", "-q", "-n", strconv.Itoa(commands), "-r", strconv.Itoa(keys / 3)}, command...)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env...)
	before, err := l.calls(ctx, command[0])
	if err != nil {
		return 0, err
	}
	took := make(chan time.Duration, 1)
	go func() { took <- l.between(ctx, command[0], before+1, before+int64(commands)) }()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("redis-benchmark: %w\n%s", err, out)
	}
	return float64(<-took) / float64(commands), ctx.Err()
}

var calls = regexp.MustCompile(`:calls=(\d+)`)

// calls returns how many commands of a name the masters have had.
func (l *lab) calls(ctx context.Context, name string) (int64, error) {
	var sum atomic.Int64
	err := l.each(ctx, func(ctx context.Context, node *redis.Client) error {
		n, err := callsOf(ctx, node, name)
		sum.Add(n)
		return err
	})
	return sum.Load(), err
}

// effects returns how many commands of a name the replicas have had: what has no effect does not go to them.
func (l *lab) effects(ctx context.Context, name string) (sum int64, err error) {
	masters, err := l.cluster.Masters(ctx)
	for _, master := range masters {
		replica, err := l.cluster.ReplicaOf(ctx, master)
		if err != nil {
			return 0, err
		}
		told := offset(ctx, master.Client(), "master_repl_offset")
		if err := eventually("a replica has heard all", func() bool { return offset(ctx, replica.Client(), "slave_repl_offset") >= told }); err != nil {
			return 0, err
		}
		n, err := callsOf(ctx, replica.Client(), name)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, err
}

// offset returns how far a node's stream of writes has come, or -1.
func offset(ctx context.Context, node *redis.Client, which string) int64 {
	info := node.InfoMap(ctx, "replication").Item("Replication", which)
	n, err := strconv.ParseInt(info, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

func callsOf(ctx context.Context, node *redis.Client, name string) (n int64, err error) {
	text, err := node.Info(ctx, "commandstats").Result()
	_, rest, _ := strings.Cut(text, "cmdstat_"+strings.ToLower(name)+":")
	if found := calls.FindStringSubmatch(":" + rest); found != nil && rest != "" {
		n, _ = strconv.ParseInt(found[1], 10, 64)
	}
	return n, err
}

// between returns how long it takes the masters to get from one number of commands to another.
func (l *lab) between(ctx context.Context, name string, from, to int64) time.Duration {
	var begun time.Time
	for n := int64(0); n < to && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		n, _ = l.calls(ctx, name)
		if n < from {
			begun = time.Now()
		}
	}
	return time.Since(begun)
}

func one(_ context.Context, id string) (lead, error) { return leadOf(id), nil }

func many(_ context.Context, ids []string) (map[string]lead, error) {
	found := make(map[string]lead, len(ids))
	for _, id := range ids {
		found[id] = leadOf(id)
	}
	return found, nil
}

// warmAll stores n entries by warming, with a set's loader and concurrency, and says how long that took.
func warmAll(ctx context.Context, s *cache.Store, n int, set cache.WarmSet[lead]) (time.Duration, error) {
	view := cache.Of[lead](s, "lead", cache.TTL(10*time.Minute))
	all := ids(n)
	set.Name, set.Keys = "all", func(context.Context) ([]string, error) { return all, nil }
	if err := view.DeclareWarm(set); err != nil {
		return 0, err
	}
	begun := time.Now()
	warmed, err := s.Warm(ctx)
	if err != nil || warmed.Sets[0].Loaded != n {
		return 0, fmt.Errorf("warm: %+v: %w", warmed, err)
	}
	return time.Since(begun), nil
}

func (l *lab) bulk(ctx context.Context) ([]report.Row, error) {
	n, rounds := 1_000_000, 3
	if l.quick {
		n, rounds = 100_000, 2
	}
	text, err := json.Marshal(leadOf("0000000"))
	if err != nil {
		return nil, err
	}
	value := strings.Repeat("x", len(text)+72)
	const key = "key:{tag}:__rand_int__"
	took := map[string]*pairs.Result{}
	note := func(name string, ns float64) {
		if took[name] == nil {
			took[name] = &pairs.Result{Name: name, Allocs: -1}
		}
		took[name].Rounds = append(took[name].Rounds, ns)
	}
	for range rounds {
		if err := l.servers(ctx); err != nil {
			return nil, err
		}
		for _, peer := range []struct {
			times, commands int
			command         func(turn int) []string
			effect          string // what replicas are told when a command has had one
		}{
			{1, 4 * n, func(int) []string { return []string{"SET", key, value, "EX", "600"} }, "set"},
			{4, n / 4, func(turn int) []string { return []string{"PEXPIRE", key, strconv.Itoa(7_200_000 + turn*600_000), "GT"} }, "pexpireat"},
			{1, n, func(int) []string { return []string{"UNLINK", key} }, "unlink"},
		} {
			before, err := l.effects(ctx, peer.effect)
			if err != nil {
				return nil, err
			}
			var took float64
			for turn := range peer.times {
				ns, err := l.limit(ctx, peer.commands, n, peer.command(turn)...)
				if err != nil {
					return nil, err
				}
				took += ns * float64(peer.commands)
			}
			after, err := l.effects(ctx, peer.effect)
			if err != nil {
				return nil, err
			}
			note(peer.command(0)[0], took/float64(after-before))
		}
		for _, way := range []struct {
			name string
			set  cache.WarmSet[lead]
		}{{"Warm, Load", cache.WarmSet[lead]{Load: one, Concurrency: 64}}, {"Warm, LoadMany", cache.WarmSet[lead]{LoadMany: many, Concurrency: 4}}} {
			if err := l.cluster.Flush(ctx); err != nil {
				return nil, err
			}
			s, err := l.store()
			if err != nil {
				return nil, err
			}
			warming, err := warmAll(ctx, s, n, way.set)
			if err != nil {
				return nil, err
			}
			note(way.name, float64(warming)/float64(n))
			if way.set.Load != nil {
				continue
			}
			begun := time.Now()
			extended, err := s.ExtendTTLs(ctx, cache.Extension{})
			if err != nil || extended.Changed < int64(n) {
				return nil, fmt.Errorf("extend: %+v: %w", extended, err)
			}
			note("ExtendTTLs", float64(time.Since(begun))/float64(n))
			begun = time.Now()
			gone, err := s.Invalidate(ctx, "*")
			if err != nil || gone.Changed < int64(n) {
				return nil, fmt.Errorf("invalidate: %+v: %w", gone, err)
			}
			note("Invalidate", float64(time.Since(begun))/float64(n))
		}
	}
	var rows []report.Row
	for _, pair := range []struct {
		ours, peer string
		share      float64
	}{{"Warm, Load", "SET", 0.75}, {"Warm, LoadMany", "SET", 0.75}, {"ExtendTTLs", "PEXPIRE", 0.75}, {"Invalidate", "UNLINK", 0.6}} {
		goal, limit := throughput(pair.share)
		rows = append(rows, row(fmt.Sprintf("%s of %d keys, peer redis-benchmark %s", pair.ours, n, pair.peer), goal, *took[pair.ours], *took[pair.peer], limit))
	}
	return rows, nil
}
