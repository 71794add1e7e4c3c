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

const bulkNote = "Time for one key, in turns with `redis-benchmark --cluster -P 100` on the same cluster, with as many keys and values of the same size: SET EX, PEXPIRE without conditions, and UNLINK, whose time is for one key that is removed; timed by the servers' own counts, as redis-benchmark looks four times a second whether it is done. " +
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
		text, err := node.Info(ctx, "commandstats").Result()
		_, rest, _ := strings.Cut(text, "cmdstat_"+strings.ToLower(name)+":")
		if found := calls.FindStringSubmatch(":" + rest); found != nil && rest != "" {
			n, _ := strconv.ParseInt(found[1], 10, 64)
			sum.Add(n)
		}
		return err
	})
	return sum.Load(), err
}

// size returns how many keys there are.
func (l *lab) size(ctx context.Context) (int64, error) {
	var sum atomic.Int64
	err := l.each(ctx, func(ctx context.Context, node *redis.Client) error {
		n, err := node.DBSize(ctx).Result()
		sum.Add(n)
		return err
	})
	return sum.Load(), err
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
			commands int
			command  []string
		}{
			{4 * n, []string{"SET", key, value, "EX", "600"}},
			{4 * n, []string{"PEXPIRE", key, "7200000"}},
			{n, []string{"UNLINK", key}},
		} {
			before, err := l.size(ctx)
			if err != nil {
				return nil, err
			}
			ns, err := l.limit(ctx, peer.commands, n, peer.command...)
			if err != nil {
				return nil, err
			}
			after, err := l.size(ctx)
			if err != nil {
				return nil, err
			}
			if removed := before - after; removed > 0 {
				ns *= float64(peer.commands) / float64(removed)
			}
			note(peer.command[0], ns)
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
