package main_test

import (
	"context"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// primary is the server that leads now.
func (s *soak) primary() *pgcluster.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pg.Servers()[s.leader]
}

// replicas are the numbers of the others.
func (s *soak) replicas() (numbers []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.proxies {
		if n != s.leader {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

func (s *soak) databaseFaults() []fault {
	// at is a fault of one server, which choose finds when it begins.
	at := func(name, class string, least, most time.Duration, choose func(*rand.Rand) int, take, bring func(context.Context, int) error) fault {
		return fault{name: name, class: class, least: least, most: most, begin: func(dice *rand.Rand) (string, func() error, error) {
			n := choose(dice)
			begin, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			return s.pg.Servers()[n].Name(), func() error {
				end, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				return bring(end, n)
			}, take(begin, n)
		}}
	}
	replica := func(name string, least, most time.Duration, take, bring func(context.Context, int) error) fault {
		choose := func(dice *rand.Rand) int { return s.replicas()[dice.IntN(2)] }
		return at(name, "replica", least, most, choose, take, bring)
	}
	primary := func(name string, least, most time.Duration, take, bring func(context.Context, int) error) fault {
		choose := func(*rand.Rand) int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.leader
		}
		return at(name, "primary", least, most, choose, take, bring)
	}
	gone := func(f fault) fault {
		f.alarm = []string{"API", "DB"}
		return f
	}
	server := func(n int) *pgcluster.Server { return s.pg.Servers()[n] }
	simple := func(do func(n int)) func(context.Context, int) error {
		return func(_ context.Context, n int) error { do(n); return nil }
	}
	start := func(ctx context.Context, n int) error { return server(n).Start(ctx) }
	freeze, thaw := simple(func(n int) { server(n).Freeze() }), simple(func(n int) { server(n).Thaw() })
	kill := simple(func(n int) { server(n).Kill() })
	heal := simple(func(n int) { s.proxies[n].Heal() })
	halfOpen := simple(func(n int) { s.proxies[n].HalfOpen() })
	blackhole := simple(func(n int) { s.proxies[n].Blackhole(faultconn.Both) })
	fill := func(_ context.Context, n int) error { return server(n).FillDisk(64 << 10) } // so the server ends, or is about to
	restart := func(ctx context.Context, n int) error { server(n).Kill(); return server(n).Start(ctx) }
	clock := func(ahead time.Duration) func(context.Context, int) error {
		return func(_ context.Context, n int) error { return server(n).SetClock(ahead) }
	}
	delay := simple(func(n int) { s.proxies[n].Delay(faultconn.ToClient, 300*time.Millisecond) })
	return []fault{
		replica("replica replay paused", 2*second, 8*second,
			func(ctx context.Context, n int) error { return server(n).PauseReplay(ctx) },
			func(ctx context.Context, n int) error { return server(n).ResumeReplay(ctx) }),
		replica("replica stream cut", 2*second, 8*second,
			func(ctx context.Context, n int) error { return server(n).CutStream(ctx) },
			func(ctx context.Context, n int) error { return server(n).RestoreStream(ctx) }),
		replica("replica's receiver frozen", 2*second, 8*second, signalReceiver(s, syscall.SIGSTOP), signalReceiver(s, syscall.SIGCONT)),
		replica("replica cancels reads", 3*second, 6*second,
			func(ctx context.Context, n int) error { return s.cancelReads(ctx, server(n)) },
			func(ctx context.Context, n int) error { return s.leaveReads(ctx, server(n)) }),
		replica("replica frozen", 3*second, 8*second, freeze, thaw),
		replica("replica killed", 2*second, 6*second, kill, start),
		replica("replica half-open", 3*second, 6*second, halfOpen, heal),
		replica("replica blackholed", 3*second, 6*second, blackhole, heal),
		replica("replica's disk full", 2*second, 6*second, fill, restart),
		replica("replica's clock ahead", 3*second, 8*second, clock(time.Hour), clock(0)),
		replica("replica's clock behind", 3*second, 8*second, clock(-time.Hour), clock(0)),
		replica("replica answers slowly", 3*second, 6*second, delay, heal),
		gone(primary("primary frozen", 2*second, 10*second, freeze, thaw)),
		gone(primary("primary killed", 2*second, 6*second, kill, start)),
		gone(primary("primary's disk full", 3*second, 6*second, fill, restart)),
		primary("primary's clock ahead", 3*second, 8*second, clock(time.Hour), clock(0)),
		primary("primary's clock behind", 3*second, 8*second, clock(-time.Hour), clock(0)),
		gone(primary("primary half-open", 3*second, 6*second, halfOpen, heal)),
		gone(primary("primary blackholed", 3*second, 6*second, blackhole, heal)),
		primary("a process of the primary killed", 0, second,
			func(ctx context.Context, n int) error { return killBackend(ctx, server(n)) }, simple(func(int) {})),
		primary("leads locked", 2*second, 5*second,
			func(ctx context.Context, n int) error { return s.lockLeads(ctx, server(n)) },
			func(ctx context.Context, _ int) error { return s.locker.Close(ctx) }),
		primary("primary's connections reset", 0, second, simple(func(n int) { s.proxies[n].Reset() }), heal),
		primary("primary answers slowly", 4*second, 8*second, delay, heal),
	}
}
