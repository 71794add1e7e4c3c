package simulate

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/scaleaware/scaleaware/redisclient"
)

// world is what one run takes place in.
type world struct {
	*rand.Rand // of what the run does; only its main goroutine draws
	t          *testing.T
	seed       uint64
	began      time.Time
	redis      *miniredis.Miniredis

	processes map[string]int
	slowest   time.Duration // of a message on its way to a server
	late      time.Duration // of an answer on its way back
	faults    []fault
	steps     []step                                                            // of Redis's clock
	heard     func(process string, reply []byte, answered time.Time, lost bool) // answered by Redis's clock
	sent      func(process, message string)

	mu      sync.Mutex
	history []event
	wrong   []string
	over    bool
}

type event struct {
	at   time.Duration
	text string
}

// fault is what happens to a process's messages in a stretch of time.
type fault struct {
	process     string
	from, until time.Duration
	kind        faultKind
	share       uint64 // of the messages, in percent
}

type faultKind int

const (
	lostRequest faultKind = iota // it never arrives, and nothing tells
	lostReply                    // it is carried out, and nothing tells
	closedBefore
	closedAfter // the connection breaks when it has been carried out
	still       // the process's messages wait for the stretch's end
	faultKinds
)

func (k faultKind) String() string {
	return [...]string{"lost requests", "lost replies", "connections closed before", "connections closed after", "standing still"}[k]
}

type step struct{ at, by time.Duration }

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		Rand: rand.New(rand.NewPCG(seed, 0)), t: t, seed: seed, began: time.Now(), redis: miniredis.NewMiniRedis(),
		heard: func(string, []byte, time.Time, bool) {}, sent: func(string, string) {}, processes: map[string]int{},
	}
	w.redis.ClockTTL(true)
	conn, err := w.redis.Dial() // which starts it
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	w.redis.Server().SetPreHook(newLua(w.redis.Server()).hook)
	t.Cleanup(w.redis.Close)
	return w
}

func (w *world) now() time.Duration { return time.Since(w.began) }

// redisNow is Redis's clock.
func (w *world) redisNow() time.Time {
	now := w.now()
	at := w.began.Add(now)
	for _, s := range w.steps {
		if s.at <= now {
			at = at.Add(s.by)
		}
	}
	return at
}

// between draws a duration.
func (w *world) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.Int64N(int64(most-least)+1))
}

// note writes into the history.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	w.history = append(w.history, event{w.now(), fmt.Sprintf(format, args...)})
}

// outcome is an error as histories have it: of two deadlines at one instant, the scheduler decides which is told.
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	return "failed"
}

// violated notes that an invariant does not hold.
func (w *world) violated(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.note("VIOLATED: %s", text)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.wrong = append(w.wrong, text)
	}
}

// end ends the history: what follows is the processes' own end.
func (w *world) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
}

// story is the history as text. What happened at one instant has no order but the alphabet's.
func (w *world) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortStableFunc(w.history, func(a, b event) int { return cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(a.text, b.text)) })
	var text strings.Builder
	for _, e := range w.history {
		fmt.Fprintf(&text, "%14.6fs %s\n", e.at.Seconds(), e.text)
	}
	return text.String()
}

// plague draws faults for some processes in the time until until, none longer than longest.
func (w *world) plague(until, longest time.Duration, processes ...string) {
	for range w.IntN(2 * len(processes)) {
		from := w.between(0, until-longest)
		f := fault{
			process: processes[w.IntN(len(processes))], from: from, until: from + w.between(time.Millisecond, longest),
			kind: faultKind(w.IntN(int(faultKinds))), share: 20 + w.Uint64N(81),
		}
		w.faults = append(w.faults, f)
		w.note("planned: %s of %s from %v until %v, %d%%", f.kind, f.process, f.from, f.until, f.share)
	}
}

// draw is a number of the seed and of what it is for, whoever asks first.
func (w *world) draw(parts ...any) uint64 {
	h := fnv.New64a()
	var seed [8]byte
	binary.BigEndian.PutUint64(seed[:], w.seed)
	_, _ = h.Write(seed[:])
	fmt.Fprint(h, parts...)
	x := h.Sum64() // FNV's high bits say little of the last bytes
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

// Time has a grid, and each kind of event a place of its own in it, so that what happens at one instant is of one kind and
// does not depend on who is first. It is wide enough for the one thing that no seed reaches: asynq waits from 0.5 to 1.5 ms,
// by the runtime's random numbers, before it fetches again. A process that listens to a deferred gate fetches on the grid.
const (
	grid      = 2500 * time.Microsecond
	delivered = 300 * time.Microsecond // when answers reach a process,
	spread    = 400 * time.Microsecond // and no two of them at once
	ended     = time.Millisecond       // when work ends
	arrived   = 1500 * time.Microsecond
	apart     = 20 * time.Microsecond // the arrivals of two processes
)

// next is the first instant from t on that is at place in the grid.
func next(t, place time.Duration) time.Duration {
	return (t-place+grid-1)/grid*grid + place
}

// fate is what becomes of a message: when it arrives, and what is wrong with it, if anything.
func (w *world) fate(process, message string) (arrives time.Duration, wrong faultKind, failed bool) {
	now := w.now()
	arrives = now
	if w.slowest > 0 {
		arrives += time.Duration(w.draw(process, message, now, "delay") % uint64(w.slowest))
	}
	for i, f := range w.faults {
		if f.process != process || now < f.from || now >= f.until {
			continue
		}
		if f.kind == still {
			arrives = max(arrives, f.until)
		} else if w.draw(process, message, now, i)%100 < f.share {
			wrong, failed = f.kind, true
		}
	}
	at := arrived + time.Duration(w.number(process))*apart + time.Duration(w.draw(process, message)%uint64(apart))
	return next(arrives, at), wrong, failed
}

// back is when an answer reaches its process.
func (w *world) back(process, message string) time.Duration {
	now := w.now()
	if message == "" {
		return now
	}
	at := now
	if w.late > 0 {
		at += time.Duration(w.draw(process, message, now, "back") % uint64(w.late))
	}
	for _, f := range w.faults {
		if f.kind == still && f.process == process && now >= f.from && now < f.until {
			at = max(at, f.until)
		}
	}
	return next(at, delivered+time.Duration(w.draw(process, message, now)%uint64(spread)))
}

// admit gives a process a number, by which its messages are told apart.
func (w *world) admit(process string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.processes[process]; !known {
		w.processes[process] = len(w.processes)
	}
}

func (w *world) number(process string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.processes[process]
}

// gate is a queue's Gate that lets everything through, on the grid.
type gate struct{ *world }

func (g gate) AllowWrite(context.Context) error {
	time.Sleep(next(g.now(), 0) - g.now())
	return nil
}

// work passes time, about d, until work ends.
func (w *world) work(d time.Duration) {
	time.Sleep(next(w.now()+d, ended) - w.now())
}

// client is a process's Redis client.
func (w *world) client(process string) redis.UniversalClient {
	w.admit(process)
	o := redisclient.Options("redis:6379")
	o.PoolSize = 1000 // nobody waits for a connection, which would be a race
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	o.DisableIdentity = true
	o.Dialer = func(context.Context, string, string) (net.Conn, error) {
		conn, err := w.redis.Dial()
		if err != nil {
			return nil, err
		}
		return newLink(w, process, conn, commandName), nil
	}
	rdb := redisclient.New(o)
	w.t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// commandName is what of a Redis command is the same in each run of a seed, or "" for a greeting, which is no message
// of the process's: which call dials is the scheduler's to decide.
func commandName(message []byte) string {
	words := strings.Split(string(message[:min(len(message), 200)]), "\r\n")
	if len(words) < 3 {
		return "?"
	}
	name, first := strings.ToLower(words[2]), 4
	switch {
	case name == "hello":
		return ""
	case name == "hgetall" && len(words) > 4 && strings.HasPrefix(words[4], "app:"):
		return "" // cache reads its rules under a mutex, and who waits for a mutex stops the bubble's clock
	case strings.HasPrefix(name, "eval") && len(words) > 8:
		name, first = name+" "+words[4][:min(len(words[4]), 80)], 8
	}
	const longest = 24 // what is longer may have a random number in it
	if len(words) > first && len(words[first]) <= longest {
		name += " " + words[first]
	}
	return fmt.Sprint(name, " ", len(message))
}
