package queuebench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/redisclient"
)

const limitsNote = "Four workers with a client each, in this process, stand for four processes; there is more to do than may start. A second is any that the handlers' clock can see, " +
	"so how late a handler gets its job counts; by Redis's clock no second holds more than the limit, and a test insists on it. Then a limit of one job is lifted again and again: until each of the workers starts jobs; and until the last job once it is back."

const members = 4

// starts are what the members of a fleet tell of their handlers.
type starts struct {
	mu sync.Mutex
	at map[string][]time.Time // by queue
	by [members]time.Time     // each one's first since reset
}

func (s *starts) tell(member int, queue string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[queue] = append(s.at[queue], now)
	if s.by[member].IsZero() {
		s.by[member] = now
	}
}

func (s *starts) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.by = map[string][]time.Time{}, [members]time.Time{}
}

// slowest is when the last of the members has started something; zero when one has not.
func (s *starts) slowest() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.by[:], time.Time.IsZero) {
		return time.Time{}
	}
	return slices.MaxFunc(s.by[:], time.Time.Compare)
}

// last is the latest start.
func (s *starts) last(queue string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.MaxFunc(s.at[queue], time.Time.Compare)
}

// seconds returns the most starts in any second, and the rate: as many of the first starts as a multiple of the limit, and the
// time from the first to the one after them, because starts come all at once when a window begins.
func (s *starts) seconds(queue string, limit int) (most int, rate float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.SortedFunc(slices.Values(s.at[queue]), time.Time.Compare)
	for first, i := 0, 0; i < len(at); i++ {
		for at[i].Sub(at[first]) >= time.Second {
			first++
		}
		most = max(most, i-first+1)
	}
	if n := (len(at) - 1) / limit * limit; n > 0 {
		rate = float64(n) / at[n].Sub(at[0]).Seconds()
	}
	return most, rate
}

// fleet starts the members, each with the same slots.
func (l *lab) fleet(queues []queue.Queue, slots int, told *starts) (stop func() error, err error) {
	run, cancel := context.WithCancel(context.Background())
	var ends []func() error
	stop = func() error { cancel(); return all(ends) }
	for i := range members {
		rdb := redisclient.New(redisclient.Options(l.server.Addrs()...))
		ends = append(ends, rdb.Close)
		j, err := queue.New(rdb, queues, nil)
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		w, err := j.NewWorker(&queue.WorkerOptions{Concurrency: slots})
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		queue.Handle(w, func(ctx context.Context, _ task) error {
			told.tell(i, queue.AttemptFrom(ctx).Queue)
			return nil
		})
		ran := make(chan error, 1)
		go func() { ran <- w.Run(run) }()
		ends[len(ends)-1] = func() error { return errors.Join(<-ran, rdb.Close()) }
	}
	return stop, nil
}

// store puts n jobs into a queue.
func store(ctx context.Context, j *queue.Jobs, name string, n int) error {
	for ; n > 0; n -= 5000 {
		batch := make([]queue.Job, min(n, 5000))
		for i := range batch {
			batch[i] = task{i}
		}
		if _, err := j.EnqueueMany(ctx, batch, queue.On(name), queue.MaxRetry(0)); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) limits(ctx context.Context) (rows []report.Row, err error) {
	if err := l.redis(ctx); err != nil {
		return nil, err
	}
	rows, err = l.rates(ctx)
	if err != nil {
		return nil, err
	}
	more, err := l.lifted(ctx)
	return append(rows, more...), err
}

// rates runs the three limits of the example together.
func (l *lab) rates(ctx context.Context) (rows []report.Row, err error) {
	seconds := 20
	if l.quick {
		seconds = 5
	}
	var queues []queue.Queue
	for i, most := range []int{1000, 100, 10} {
		l.queues++
		queues = append(queues, queue.Queue{Name: fmt.Sprintf("bench%d", l.queues), Weight: 3 - i, Rate: queue.Rate{Max: most, Per: time.Second}})
	}
	j, err := queue.New(l.rdb, queues, nil)
	if err != nil {
		return nil, err
	}
	for _, q := range queues {
		if err := store(ctx, j, q.Name, (seconds+5)*q.Rate.Max); err != nil {
			return nil, err
		}
	}
	told := new(starts)
	told.reset()
	stop, err := l.fleet(queues, 20, told)
	if err != nil {
		return nil, err
	}
	time.Sleep(time.Duration(seconds) * time.Second)
	if err := stop(); err != nil {
		return nil, err
	}
	for _, q := range queues {
		most, rate := told.seconds(q.Name, q.Rate.Max)
		limit := q.Rate.Max + max(2, q.Rate.Max/100)
		rows = append(rows, report.Row{
			What: fmt.Sprintf("at most %d a second, for %d s", q.Rate.Max, seconds), Goal: fmt.Sprintf("≥ 99 %% of it; ≤ %d in a second of the handlers", limit),
			Ours: fmt.Sprintf("%.1f a second, at most %d in one", rate, most), Met: report.All(report.AtLeast(rate, 0.99*float64(q.Rate.Max)), report.AtMost(float64(most), float64(limit))),
		})
	}
	return rows, nil
}

// lifted changes a limit while jobs wait for it.
func (l *lab) lifted(ctx context.Context) (rows []report.Row, err error) {
	rounds := 20
	if l.quick {
		rounds = 4
	}
	l.queues++
	shut := queue.Limits{Rate: queue.Rate{Max: 1, Per: time.Minute}}
	q := queue.Queue{Name: fmt.Sprintf("bench%d", l.queues), Rate: shut.Rate}
	j, err := queue.New(l.rdb, []queue.Queue{q}, nil)
	if err != nil {
		return nil, err
	}
	told := new(starts)
	told.reset()
	stop, err := l.fleet([]queue.Queue{q}, 4, told)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	var up, down []time.Duration
	for range rounds {
		if err := store(ctx, j, q.Name, 20_000); err != nil {
			return nil, err
		}
		time.Sleep(500 * time.Millisecond) // all wait
		told.reset()
		begun := time.Now()
		if err := j.SetLimits(ctx, q.Name, queue.Limits{Rate: queue.Rate{Max: 100_000, Per: time.Minute}}); err != nil {
			return nil, err
		}
		for told.slowest().IsZero() {
			if time.Since(begun) > patience {
				return nil, errors.New("a worker does not start jobs although their limit was lifted")
			}
			time.Sleep(time.Millisecond)
		}
		up = append(up, told.slowest().Sub(begun))
		begun = time.Now()
		if err := j.SetLimits(ctx, q.Name, shut); err != nil {
			return nil, err
		}
		time.Sleep(1500 * time.Millisecond)
		down = append(down, max(0, told.last(q.Name).Sub(begun)))
		if _, err := j.Purge(ctx, q.Name, queue.Waiting); err != nil {
			return nil, err
		}
	}
	for _, way := range []struct {
		what string
		took []time.Duration
	}{{"a lifted limit, until all four start jobs", up}, {"a limit that is back, until the last job starts", down}} {
		longest := slices.Max(way.took)
		rows = append(rows, report.Row{
			What: way.what, Goal: "≤ 1 s", Ours: fmt.Sprintf("p50 %s, longest of %d %s", report.Since(at(way.took, 50)), rounds, report.Since(longest)), Met: report.AtMost(longest.Seconds(), 1),
		})
	}
	return rows, nil
}
