package consistency

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// paused stands for a replica that replays nothing.
const paused = time.Duration(-1)

// lags are what the schedule deals: every one is in force once in six steps, on one replica or the other.
var lags = []time.Duration{0, 50 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 5 * time.Second, paused}

// lagging delays and pauses replicas by a seeded schedule.
type lagging struct {
	cluster *pgcluster.Cluster
	dice    *rand.Rand
	deck    []time.Duration
	now     [2]time.Duration
	steps   int
	dealt   map[time.Duration]int
	reach   bool // each is held for long enough to be reached
	seen    lagSeen
}

// seed is SCALEAWARE_SEED, or a random one.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := rand.Uint64()
	if text := os.Getenv("SCALEAWARE_SEED"); text != "" {
		var err error
		s, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("seed %d: SCALEAWARE_SEED=%d runs this schedule again", s, s)
	return s
}

// startLag deals lags until stop is called, which then takes them away. To reach the long ones it takes some seconds each; without
// that all are dealt in a few seconds, and are hardly ever more than one behind.
func startLag(t *testing.T, c *pgcluster.Cluster, seed uint64, reach bool) (l *lagging, stop func()) {
	l = &lagging{cluster: c, dice: rand.New(rand.NewPCG(seed, 1)), dealt: map[time.Duration]int{}, reach: reach}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- l.run(ctx) }()
	go func() {
		err := l.seen.watch(ctx, c)
		if ctx.Err() != nil {
			err = nil
		}
		done <- err
	}()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		for range cap(done) {
			if err := <-done; err != nil {
				t.Errorf("lag: %v", err)
			}
		}
	}
	t.Cleanup(stop)
	return l, stop
}

func (l *lagging) run(ctx context.Context) error {
	safe := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		if len(l.deck) == 0 {
			for _, i := range l.dice.Perm(len(lags)) {
				l.deck = append(l.deck, lags[i])
			}
		}
		lag := l.deck[0]
		l.deck = l.deck[1:]
		l.dealt[lag]++
		l.steps++
		one := l.dice.IntN(2)
		other := lags[l.dice.IntN(2)]
		if l.dice.IntN(5) == 0 {
			other = lags[l.dice.IntN(len(lags))]
		}
		hold := time.Duration(200+l.dice.IntN(600)) * time.Millisecond
		if l.reach && lag == paused {
			hold += 2 * far
		} else if l.reach {
			hold += lag * 3 / 2
		}
		if err := l.set(safe, one, lag); err != nil {
			return err
		}
		if err := l.set(safe, 1-one, other); err != nil {
			return err
		}
		select {
		case <-time.After(hold):
		case <-ctx.Done():
		}
	}
	for i := range l.now {
		if err := l.set(safe, i, 0); err != nil {
			return err
		}
	}
	return nil
}

func (l *lagging) set(ctx context.Context, i int, lag time.Duration) error {
	if l.now[i] == lag {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r := l.cluster.Replica(i)
	if l.now[i] == paused {
		if err := r.ResumeReplay(ctx); err != nil {
			return err
		}
	}
	// A replica that waits for a delayed commit would not see that it is to pause.
	if err := r.SetApplyDelay(ctx, max(lag, 0)); err != nil {
		return err
	}
	l.now[i] = lag
	if lag == paused {
		return r.PauseReplay(ctx)
	}
	return nil
}

// String tells how often each lag was dealt, and what came of it. It is for after stop.
func (l *lagging) String() string {
	text := fmt.Sprintf("%d steps:", l.steps)
	for _, lag := range lags {
		name := lag.String()
		if lag == paused {
			name = "paused"
		}
		text += fmt.Sprintf(" %s × %d", name, l.dealt[lag])
	}
	return text + "; " + l.seen.String()
}
