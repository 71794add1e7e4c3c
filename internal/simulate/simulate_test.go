package simulate

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// scenario is one piece of logic and what must hold of it.
type scenario struct {
	name   string
	weight int // its share of the runs
	run    func(w *world)
}

func scenarios() []scenario {
	return []scenario{
		{"limiter", 1, limiter},
		{"lease", 8, lease},
		{"scaler", 1, scaler},
		{"epochs", 2, epochs},
		{"breaker", 12, breaker},
		{"alerts", 10, alerts},
	}
}

// once is one run of a scenario. virtual is the time that passed in it.
func (s scenario) once(t *testing.T, seed uint64) (story string, virtual time.Duration, wrong []string) {
	defer func() {
		if p := recover(); p != nil { // goroutines that wait for ever
			wrong = append(wrong, fmt.Sprint(p))
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed)
		t.Cleanup(func() { story, virtual, wrong = w.story(), w.now(), w.wrong }) // the last one to run
		s.run(w)
	})
	return story, virtual, wrong
}

// TestSimulate runs SCALEAWARE_RUNS runs in all, from seed SCALEAWARE_SEED on. The everyday run makes a few.
func TestSimulate(t *testing.T) {
	runs, seed := number(t, "SCALEAWARE_RUNS", 18), number(t, "SCALEAWARE_SEED", 1)
	only := os.Getenv("SCALEAWARE_SCENARIO")
	var chosen []scenario
	for _, s := range scenarios() {
		if only == "" || s.name == only {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		t.Fatalf("there is no scenario %q", only)
	}
	began, done := time.Now(), make([]int, len(chosen))
	weights := 0
	for _, s := range chosen {
		weights += s.weight
	}
	t.Run("all", func(t *testing.T) {
		for i, s := range chosen {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				began, virtual, failed := time.Now(), time.Duration(0), 0
				for n := range (int(runs)*s.weight + weights - 1) / weights {
					story, took, wrong := s.once(t, seed+uint64(n))
					virtual += took
					done[i]++
					if len(wrong) > 0 {
						fail(t, s.name, seed+uint64(n), story, wrong)
						if failed++; failed == 3 {
							break
						}
					}
				}
				t.Logf("%-8s %5d runs, %11v simulated in %6.1fs, seeds %d to %d", s.name, done[i], virtual.Round(time.Second),
					time.Since(began).Seconds(), seed, seed+uint64(done[i])-1)
			})
		}
	})
	total := 0
	for _, n := range done {
		total += n
	}
	t.Logf("%d runs in %.1fs", total, time.Since(began).Seconds())
	if total < int(runs) {
		t.Errorf("only %d runs of %d were done", total, runs)
	}
}

// TestSeedsReplay runs seeds twice: their histories are the same, byte for byte.
func TestSeedsReplay(t *testing.T) {
	times := number(t, "SCALEAWARE_REPLAYS", 2)
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= times; seed++ {
				first, _, _ := s.once(t, seed)
				second, _, _ := s.once(t, seed)
				if first != second {
					t.Errorf("seed %d has two histories:\n%s", seed, difference(first, second))
				}
			}
		})
	}
}

// difference shows where two histories part.
func difference(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(as), len(bs)) {
		if as[i] != bs[i] {
			return strings.Join(as[max(0, i-5):i], "\n") + "\n< " + as[i] + "\n> " + bs[i]
		}
	}
	return fmt.Sprintf("one has %d lines, the other %d", len(as), len(bs))
}

func fail(t *testing.T, name string, seed uint64, story string, wrong []string) {
	t.Helper()
	const tail = 60
	lines := strings.Split(strings.TrimSpace(story), "\n")
	if n := len(lines); n > tail && os.Getenv("SCALEAWARE_STORY") == "" {
		lines = append([]string{fmt.Sprintf("… %d lines before, SCALEAWARE_STORY=1 shows all", n-tail)}, lines[n-tail:]...)
	}
	t.Errorf("%s, seed %d: %s\nReplay it: make simulate RUNS=1 SEED=%[2]d SCENARIO=%[1]s\n%[4]s", name, seed, strings.Join(wrong, "; "), strings.Join(lines, "\n"))
}

func number(t *testing.T, name string, zero uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return zero
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
