package queue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// textOf is a client that only looks at the script it is to load.
type textOf struct {
	redis.UniversalClient
	text string
}

func (s *textOf) ScriptLoad(ctx context.Context, script string) *redis.StringCmd {
	s.text = script
	return redis.NewStringCmd(ctx)
}

// A smooth queue starts as many as it may though each of its wake-ups comes late, never more in any window, and never many at once.
// The script runs in Redis, by a clock that the test sets.
func TestSmoothDeliversItsRate(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	var source textOf
	if err := popScript.Load(t.Context(), &source).Err(); err != nil {
		t.Fatal(err)
	}
	for _, most := range []int{1, 2, 10, 19, 20, 39, 100} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel()
			q := Queue{Name: fresh("smooth"), Rate: Rate{Max: most, Per: time.Second}, Smooth: true}
			clock := ownKey(q.Name, "clock")
			script := redis.NewScript(strings.ReplaceAll(source.text, `redis.call("TIME")`, `redis.call("LRANGE", "`+clock+`", "0", "1")`))
			j := newJobs(t, rdb, nil, q)
			const span = 30 * time.Second
			fill(t, j, q.Name, most*int(span/time.Second)+most)
			random := rand.New(rand.NewPCG(uint64(most), 8))
			keys, args := fetching(q.Name)
			keys = append(keys, ownKey(q.Name, "starts"), ownKey(q.Name, "pop:x"), ownKey(q.Name, "limits"), ownKey(q.Name, "throttle"), ownKey(q.Name, "tat"))
			var stamps []time.Duration
			begin := int64(1_800_000_000_000_000)
			for now, call := time.Duration(0), 1; now < span; call++ {
				at := begin + now.Microseconds()
				pipe := rdb.Pipeline()
				pipe.Del(t.Context(), clock)
				pipe.RPush(t.Context(), clock, at/1_000_000, at%1_000_000)
				if _, err := pipe.Exec(t.Context()); err != nil {
					t.Fatal(err)
				}
				res, err := script.Run(t.Context(), rdb, keys, append(args[:2:2], "x", most, call, call-1, j.queues[0].limits().text())...).StringSlice()
				if err != nil {
					t.Fatal(err)
				}
				reply, err := parsePop(res)
				switch {
				case err != nil || reply.kind == "empty":
					t.Fatal(res, err)
				case reply.kind == "limited":
					now += reply.wait + time.Duration(random.Int64N(int64(4*time.Millisecond))) // a wake-up is 2ms late on the average
				}
				for range reply.jobs {
					stamps = append(stamps, now)
				}
			}
			rate := float64(len(stamps)-1) / (stamps[len(stamps)-1] - stamps[0]).Seconds()
			t.Logf("%.3f starts in a second", rate)
			if rate < 0.99*float64(most) {
				t.Errorf("%.3f starts in a second, want at least 99 %% of %d", rate, most)
			}
			for i, stamp := range stamps {
				if i >= most && stamp-stamps[i-most] < time.Second {
					t.Fatalf("%d starts within %v", most+1, stamp-stamps[i-most])
				}
				if burst := 1 + most/20; i >= burst && stamp == stamps[i-burst] {
					t.Fatalf("%d starts at once", burst+1)
				}
			}
		})
	}
}
