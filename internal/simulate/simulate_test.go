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
	name string
	run  func(w *world)
}

func scenarios() []scenario {
	return []scenario{
		{"limiter", limiter},
		{"lease", lease},
		{"scaler", scaler},
		{"epochs", epochs},
		{"breaker", breaker},
	}
}

// run is one run of a scenario. virtual is the time that passed in it.
func (s scenario) run1(t *testing.T, seed uint64) (story string, virtual time.Duration, wrong []string) {
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
	each := (int(runs) + len(chosen) - 1) / len(chosen)
	t.Run("all", func(t *testing.T) {
		for i, s := range chosen {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				began, virtual, failed := time.Now(), time.Duration(0), 0
				for n := range each {
					story, took, wrong := s.run1(t, seed+uint64(n))
					virtual += took
					done[i]++
					if len(wrong) > 0 {
						fail(t, s.name, seed+uint64(n), story, wrong)
						if failed++; failed == 3 {
							break
						}
					}
				}
				t.Logf("%-10s %5d runs, %11v simulated in %6.1fs, seeds %d to %d", s.name, done[i], virtual.Round(time.Second),
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
	seed, times := number(t, "SCALEAWARE_SEED", 1), number(t, "SCALEAWARE_REPLAYS", 2)
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for seed := range times {
				seed += 1
				first, _, _ := s.run1(t, seed)
				second, _, _ := s.run1(t, seed)
				if first != second {
					t.Errorf("seed %d has two histories:\n%s", seed, difference(first, second))
				}
			}
		})
	}
	_ = seed
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
