package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// Each client makes a request about every tenth of a second, so that two cores bear it with the race detector.
const (
	soakClients  = 4
	soakWarmUp   = 10 * time.Second
	soakMembers  = 6 // three API instances, two workers and the platform itself obey read-only mode
	soakDatabase = "soak"
)

// TestPlatformSoak breaks the running platform for as long as SCALEAWARE_SOAK says, one or two faults at a time, each of which is
// healed, and checks meanwhile and afterwards that no promise was broken. It prints its seed; SCALEAWARE_SEED runs the
// same schedule again, SCALEAWARE_FAULTS restricts it to faults whose names contain one of the given words.
//
// The servers belong to the test, so that it can kill and restart them, and PostgreSQL is reached through proxies that
// misbehave on demand.
func TestPlatformSoak(t *testing.T) {
	text := os.Getenv("SCALEAWARE_SOAK")
	if text == "" {
		t.Skip("set SCALEAWARE_SOAK to a duration, as make soak does")
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	s := newSoak(t)
	t.Logf("seed %d: SCALEAWARE_SEED=%d runs this schedule again", s.seed, s.seed)
	clients := s.startClients()
	s.rest(soakWarmUp)
	before := s.resources()
	for end := time.Now().Add(length); time.Now().Before(end) && !s.isBroken(); {
		s.round()
	}
	s.healedFor(before)
	close(s.quit)
	clients.Wait()
	s.nobodyReturns()
	s.ledger()
	s.exit()
	if s.isBroken() {
		t.Fatal(s.report())
	}
	t.Log(s.summary())
}

// soak is one run.
type soak struct {
	t       *testing.T
	seed    uint64
	dice    *rand.Rand
	p       *platform
	pg      *pgcluster.Cluster
	redis   *rediscluster.Cluster
	proxies []*faultconn.Proxy // one before each server of pg
	faults  []fault
	clients []*soakClient
	crowd   *client // reads what others wrote, and writes nothing
	alarms  *alarms
	began   time.Time
	quit    chan struct{}

	locker    *pgx.Conn // holds a lock
	canceller func()    // ends what cancels reads

	mu         sync.Mutex
	leader     int // of pg's servers
	unsure     []span
	schedule   []string
	violations []string
	broken     chan struct{}
	lastError  time.Time
	counts     map[string]int
}

func newSoak(t *testing.T) *soak {
	s := &soak{t: t, seed: rand.Uint64(), began: time.Now(), quit: make(chan struct{}), broken: make(chan struct{}), counts: map[string]int{}}
	if text := os.Getenv("SCALEAWARE_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		s.seed = seed
	}
	s.dice = rand.New(rand.NewPCG(s.seed, 0))
	s.startServers()
	s.faults = s.catalogue()
	driveBy(t, soakThresholds)
	s.p = start(t, "-rate", "8", "-clients", "6")
	s.crowd = newClient(t, s.p.state(t).API, "crowd")
	s.alarms = s.watchAlarms()
	return s
}

func (s *soak) startServers() {
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	var err error
	if s.pg, err = pgcluster.Start(ctx, &pgcluster.Options{Replicas: 2, Clocks: true, Settings: map[string]string{"max_connections": "300", "wal_keep_size": "1GB"}}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.pg.Close() })
	config := map[string]string{"maxmemory": "268435456", "maxmemory-policy": "noeviction"}
	if s.redis, err = rediscluster.Start(ctx, &rediscluster.Options{Nodes: 6, Config: config}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.redis.Close() })
	if err := s.pg.CreateDatabase(ctx, soakDatabase); err != nil {
		s.t.Fatal(err)
	}
	var urls []string
	for _, server := range s.pg.Servers() {
		proxy, err := faultconn.New(server.Addr())
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { proxy.Close() })
		s.proxies = append(s.proxies, proxy)
		urls = append(urls, strings.Replace(server.URL(soakDatabase), server.Addr(), proxy.Addr(), 1))
	}
	s.t.Setenv("DATABASE_URL_PRIMARY", urls[0])
	s.t.Setenv("DATABASE_URL_REPLICA", strings.Join(urls[1:], ","))
	s.t.Setenv("REDIS_ADDRS", strings.Join(s.redis.Addrs(), ","))
}

// round injects one or two faults that do not exclude each other, and heals them.
func (s *soak) round() {
	chosen := []fault{s.faults[s.dice.IntN(len(s.faults))]}
	if s.dice.IntN(2) == 0 {
		if second := s.faults[s.dice.IntN(len(s.faults))]; !second.excludes(chosen[0]) {
			chosen = append(chosen, second)
		}
	}
	heals := make([]func() error, len(chosen))
	holds := make([]time.Duration, len(chosen))
	began := make([]time.Time, len(chosen))
	for i, f := range chosen {
		note, heal, err := f.begin(rand.New(rand.NewPCG(s.seed, s.dice.Uint64())))
		if err != nil {
			s.violate(nil, "%s cannot be injected: %v", f.name, err)
		}
		s.log("%s: %s", f.name, note)
		heals[i] = heal
		holds[i] = f.least + time.Duration(s.dice.Int64N(int64(f.most-f.least)+1))
		began[i] = time.Now()
		s.rest(time.Duration(s.dice.IntN(1500)) * time.Millisecond)
	}
	var all sync.WaitGroup // each at its time: undoing an operation may need the servers that the other fault took
	for i, heal := range heals {
		all.Go(func() {
			s.rest(holds[i])
			if heal == nil {
				return
			}
			if err := heal(); err != nil {
				s.violate(nil, "%s does not heal: %v", chosen[i].name, err)
			}
			s.log("%s: healed", chosen[i].name)
		})
	}
	all.Wait()
	for i, f := range chosen {
		s.alarms.expect(f, began[i], holds[i])
	}
	s.rest(time.Second + time.Duration(s.dice.IntN(2000))*time.Millisecond)
}

// rest waits, unless a promise is broken meanwhile.
func (s *soak) rest(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.broken:
	}
}

func (s *soak) log(format string, args ...any) {
	line := fmt.Sprintf("%7.2fs  ", time.Since(s.began).Seconds()) + fmt.Sprintf(format, args...)
	s.mu.Lock()
	s.schedule = append(s.schedule, line)
	s.mu.Unlock()
	s.t.Log(line)
}

// violate notes a broken promise, with the end of what the client did that saw it.
func (s *soak) violate(history []string, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprintf("%7.2fs  ", time.Since(s.began).Seconds()) + fmt.Sprintf(format, args...)
	for _, line := range history {
		text += "\n      " + line
	}
	if s.violations = append(s.violations, text); len(s.violations) == 1 {
		close(s.broken)
	}
}

func (s *soak) isBroken() bool {
	select {
	case <-s.broken:
		return true
	default:
		return false
	}
}

func (s *soak) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
	if what == "error" {
		s.lastError = time.Now()
	}
}

func (s *soak) report() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	const most = 10
	shown := s.violations[:min(most, len(s.violations))]
	return fmt.Sprintf("%d broken promises, seed %d\n%s\n\nschedule:\n%s\n\ncounts: %v",
		len(s.violations), s.seed, strings.Join(shown, "\n"), strings.Join(s.schedule, "\n"), s.counts)
}

func (s *soak) summary() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("seed %d: no promise broken in %v; %v", s.seed, time.Since(s.began).Round(time.Second), s.counts)
}

var staleCount = regexp.MustCompile(`stale ([1-9][0-9]*)`)

// exit interrupts the platform: it ends cleanly, and nothing that it printed tells of a race or of a stale read.
func (s *soak) exit() {
	state := s.p.state(s.t)
	s.p.signal(syscall.SIGINT)
	select {
	case <-s.p.done:
		if s.p.err != nil {
			s.violate(nil, "exit: %v", s.p.err)
		}
	case <-time.After(60 * time.Second):
		s.violate(nil, "the platform still runs a minute after the interrupt")
	}
	for _, process := range state.Processes {
		if process.PID != 0 && !gone(process.PID) {
			s.violate(nil, "%s has outlived the platform", process.Name)
		}
	}
	output := s.p.output.String()
	if found := staleCount.FindString(output); found != "" {
		s.violate(nil, "the platform's own clients could not read their writes: %s", found)
	}
	if strings.Contains(output, "DATA RACE") {
		s.violate(nil, "a data race, see the output")
	}
}
