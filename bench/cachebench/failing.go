package cachebench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

const (
	failingNote = "A master is stopped by SIGSTOP, for less than the cluster takes to replace it, and goes on. When it has just stopped, 16 callers ask for what it has, at once: those wait for their RedisTimeout, 250 ms. " +
		"Then its breaker is open, and one caller goes on asking, a millisecond apart: now and then its call is the trial, which waits. All the while one caller reads what the other masters have. " +
		"At last masters are stopped until they are replaced, or killed: from when the replica calls itself a master to the first answer to one of 16 callers that ask for what is there."
	failingBudget  = 250 * time.Millisecond // Options.RedisTimeout's default
	failingCallers = 16
	frozenFor      = 1500 * time.Millisecond // a cluster replaces a master that is silent for two seconds
)

// failing measures what one master that does not answer costs.
type failing struct {
	*lab
	view          *cache.View[lead]
	there, beside string // an id that the victim has, and one that another master has
}

func (l *lab) failing(ctx context.Context) ([]report.Row, error) {
	if err := l.servers(ctx); err != nil {
		return nil, err
	}
	l.stores++
	s, err := cache.New(l.rdb, &cache.Options{Prefix: fmt.Sprintf("bench%d:", l.stores)})
	if err != nil {
		return nil, err
	}
	defer running(ctx, s)()
	f := &failing{lab: l, view: cache.Of[lead](s, "lead", cache.TTL(time.Hour)), there: "{a}"}
	for tag := 'b'; f.beside == ""; tag++ {
		if other, err := f.master(ctx, fmt.Sprintf("{%c}", tag)); err != nil {
			return nil, err
		} else if victim, err := f.master(ctx, f.there); err != nil {
			return nil, err
		} else if other != victim {
			f.beside = fmt.Sprintf("{%c}", tag)
		}
	}
	for _, id := range []string{f.there, f.beside} {
		if err := f.view.Set(ctx, id, leadOf(id)); err != nil {
			return nil, err
		}
	}
	frozen, err := f.frozen(ctx)
	if err != nil {
		return nil, err
	}
	replaced, err := f.replaced(ctx)
	return append(frozen, replaced...), err
}

func (f *failing) master(ctx context.Context, id string) (*rediscluster.Node, error) {
	return f.cluster.MasterFor(ctx, id) // the tag in braces alone decides
}

// asking asks for an id until it is told to return what each call took.
func (f *failing) asking(ctx context.Context, id string) (stop func() []time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	all := make(chan []time.Duration)
	go func() {
		var took []time.Duration
		for ctx.Err() == nil {
			took = append(took, f.ask(ctx, id))
			time.Sleep(time.Millisecond)
		}
		all <- took
	}()
	return func() []time.Duration { cancel(); return <-all }
}

func (f *failing) ask(ctx context.Context, id string) time.Duration {
	begun := time.Now()
	_, _ = f.view.Get(context.WithoutCancel(ctx), id)
	return time.Since(begun)
}

func (f *failing) frozen(ctx context.Context) ([]report.Row, error) {
	rounds := 10
	if f.quick {
		rounds = 3
	}
	victim, err := f.master(ctx, f.there)
	if err != nil {
		return nil, err
	}
	before, during := pairs.Result{Allocs: -1}, pairs.Result{Allocs: -1}
	var first, open []time.Duration
	for range rounds {
		alone := f.asking(ctx, f.beside)
		time.Sleep(frozenFor)
		before.Rounds = append(before.Rounds, float64(percentile(alone(), 99)))

		beside := f.asking(ctx, f.beside)
		victim.Freeze()
		begun := time.Now()
		first = append(first, f.crowd(ctx)...)
		opened := f.asking(ctx, f.there)
		time.Sleep(frozenFor - time.Since(begun))
		open = append(open, opened()...)
		during.Rounds = append(during.Rounds, float64(percentile(beside(), 99)))
		victim.Thaw()
		if err := f.recovered(ctx); err != nil {
			return nil, err
		}
	}
	return []report.Row{
		tail(fmt.Sprintf("Get by %d callers from a master that has just stopped", failingCallers), first, failingBudget+5*time.Millisecond),
		tail("Get from it once its breaker is open", open, time.Millisecond),
		row("99th percentile of Gets from other masters meanwhile, peer before", "≤ 1.5 ×", during, before, 1.5),
	}, nil
}

// crowd asks for what the victim has by many callers at once.
func (f *failing) crowd(ctx context.Context) []time.Duration {
	took := make([]time.Duration, failingCallers)
	var wg sync.WaitGroup
	for i := range took {
		wg.Go(func() { took[i] = f.ask(ctx, f.there) })
	}
	wg.Wait()
	return took
}

func (f *failing) recovered(ctx context.Context) error {
	if err := f.cluster.WaitHealthy(ctx); err != nil {
		return err
	}
	return eventually("the breaker is closed", func() bool {
		_, err := f.view.Get(ctx, f.there)
		return err == nil
	})
}

// replaced measures how soon callers have the new master.
func (f *failing) replaced(ctx context.Context) ([]report.Row, error) {
	rounds := 5
	if f.quick {
		rounds = 1
	}
	var rows []report.Row
	for _, way := range []struct {
		what   string
		down   func(*rediscluster.Node)
		goesOn func(*rediscluster.Node) error
	}{
		{"stopped", (*rediscluster.Node).Freeze, func(n *rediscluster.Node) error { n.Thaw(); return nil }},
		{"killed", (*rediscluster.Node).Kill, func(n *rediscluster.Node) error { return n.Start(ctx) }},
	} {
		var took []time.Duration
		for range rounds {
			victim, err := f.master(ctx, f.there)
			if err != nil {
				return nil, err
			}
			heir, err := f.cluster.ReplicaOf(ctx, victim)
			if err != nil {
				return nil, err
			}
			way.down(victim)
			d, err := f.resumes(ctx, heir)
			if err = errors.Join(err, way.goesOn(victim), f.recovered(ctx)); err != nil {
				return nil, err
			}
			took = append(took, d)
		}
		rows = append(rows, report.Row{
			What: "From a replica's promotion to the first answer, the master " + way.what, Goal: "≤ 1 s",
			Ours: fmt.Sprintf("median %s, longest of %d %s", report.Since(percentile(took, 50)), len(took), report.Since(slices.Max(took))),
			Met:  report.AtMost(float64(slices.Max(took)), float64(time.Second)),
		})
	}
	return rows, nil
}

// resumes returns how long after heir has become a master the first call is answered.
func (f *failing) resumes(ctx context.Context, heir *rediscluster.Node) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	answered := make(chan time.Time, failingCallers)
	for range failingCallers {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := f.view.Get(ctx, f.there); err == nil {
					answered <- time.Now()
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	var promoted time.Time
	err := eventually("the replica is promoted", func() bool {
		role, err := heir.Client().Do(ctx, "ROLE").Slice()
		promoted = time.Now()
		return err == nil && role[0] == "master"
	})
	if err != nil {
		return 0, err
	}
	select {
	case at := <-answered:
		return max(0, at.Sub(promoted)), nil
	case <-time.After(patience):
		return 0, errors.New("nobody is answered by the new master")
	}
}
