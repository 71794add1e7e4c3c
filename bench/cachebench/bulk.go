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
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/internal/localserver"
)

const bulkNote = "Time for one key, in turns with `redis-benchmark --cluster -P 100` on the same cluster with as many keys and values of the same size: SET EX, PEXPIRE GT, UNLINK. " +
	"Warm has a loader that returns at once and Concurrency 64. ExtendTTLs and Invalidate(\"*\") then go over what it stored."

var perSecond = regexp.MustCompile(`([0-9.]+) requests per second`)

// limit returns the ns that one command takes redis-benchmark. It spreads keys over all slots, so each slot has a
// 16384th of them.
func (l *lab) limit(ctx context.Context, n int, command ...string) (float64, error) {
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
	args := append([]string{"-h", host, "-p", port, "--cluster", "-P", "100", "-q", "-n", strconv.Itoa(n), "-r", strconv.Itoa(max(1, n/16384))}, command...)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("redis-benchmark: %w\n%s", err, out)
	}
	found := perSecond.FindAllStringSubmatch(string(out), -1)
	if found == nil {
		return 0, fmt.Errorf("redis-benchmark printed no rate:\n%s", out)
	}
	rate, err := strconv.ParseFloat(found[len(found)-1][1], 64)
	if err != nil || rate <= 0 {
		return 0, fmt.Errorf("redis-benchmark: rate %q", found[len(found)-1][1])
	}
	return 1e9 / rate, nil
}

// warmAll stores n entries by warming, and says how long that took.
func warmAll(ctx context.Context, s *cache.Store, n int) (time.Duration, error) {
	view := cache.Of[lead](s, "lead", cache.TTL(10*time.Minute))
	all := ids(n)
	if err := view.DeclareWarm(cache.WarmSet[lead]{
		Name: "all", Concurrency: 64,
		Keys: func(context.Context) ([]string, error) { return all, nil },
		Load: func(_ context.Context, id string) (lead, error) { return leadOf(id), nil },
	}); err != nil {
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
	n, rounds := 300_000, 3
	if l.quick {
		n, rounds = 100_000, 2
	}
	text, err := json.Marshal(leadOf("0000000"))
	if err != nil {
		return nil, err
	}
	value := strings.Repeat("x", len(text)+72)
	const key = "key:{tag}:__rand_int__"
	names := []string{"SET", "PEXPIRE", "UNLINK", "Warm", "ExtendTTLs", "Invalidate"}
	took := map[string]*pairs.Result{}
	for _, name := range names {
		took[name] = &pairs.Result{Name: name, Allocs: -1}
	}
	note := func(name string, ns float64) { took[name].Rounds = append(took[name].Rounds, ns) }
	for range rounds {
		if err := l.servers(ctx); err != nil {
			return nil, err
		}
		for i, command := range [][]string{{"SET", key, value, "EX", "600"}, {"PEXPIRE", key, "7200000", "GT"}, {"UNLINK", key}} {
			ns, err := l.limit(ctx, n, command...)
			if err != nil {
				return nil, err
			}
			note(names[i], ns)
		}
		if err := l.cluster.Flush(ctx); err != nil {
			return nil, err
		}
		s, err := l.store()
		if err != nil {
			return nil, err
		}
		warming, err := warmAll(ctx, s, n)
		if err != nil {
			return nil, err
		}
		note("Warm", float64(warming)/float64(n))
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
	var rows []report.Row
	for _, pair := range []struct {
		ours, peer string
		share      float64
	}{{"Warm", "SET", 0.75}, {"ExtendTTLs", "PEXPIRE", 0.75}, {"Invalidate", "UNLINK", 0.6}} {
		goal, limit := throughput(pair.share)
		rows = append(rows, row(fmt.Sprintf("%s of %d keys, peer redis-benchmark %s", pair.ours, n, pair.peer), goal, *took[pair.ours], *took[pair.peer], limit))
	}
	return rows, nil
}
