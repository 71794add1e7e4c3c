package dbsplitbench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

const (
	readEvery  = 2 * time.Millisecond
	slice      = 100 * time.Millisecond
	before     = 2 * time.Second
	afterwards = 4 * time.Second
	// calmSlices in a row must be as quick as before, so that one lucky slice is no return.
	calmSlices = 3
)

const lostNote = "500 reads a second, each begun in time whether or not earlier ones have been answered, from a primary with two replicas, of which one is lost. dbsplit has its defaults. " +
	"Reads are sorted into slices of 100 ms by when they were begun; p99 is back when three slices in a row are within twice the p99 from before, or 10 ms. Medians of several losses (lowest to highest)."

// sample is one read.
type sample struct {
	begun, took time.Duration
	failed      bool
}

func (l *lab) lostReplica(ctx context.Context) (rows []report.Row, err error) {
	for _, v := range []struct {
		what  string
		lose  func(*pgcluster.Server)
		limit time.Duration
	}{
		{"killed (SIGKILL)", (*pgcluster.Server).Kill, time.Second},
		{"frozen (SIGSTOP)", (*pgcluster.Server).Freeze, 1500 * time.Millisecond},
	} {
		var failed, back, slowest []float64
		for range l.opts.times(5) {
			samples, lost, err := loseOnce(ctx, v.lose)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", v.what, err)
			}
			f, b, s := judgeLoss(samples, lost)
			failed, back, slowest = append(failed, f), append(back, b), append(slowest, s)
		}
		slices.Sort(failed)
		slices.Sort(back)
		slices.Sort(slowest)
		what := fmt.Sprintf("%s, %d times: ", v.what, len(back))
		rows = append(rows,
			report.Row{What: what + "failed reads", Goal: "0", Ours: span(failed, report.Count), Met: report.AtMost(failed[len(failed)-1], 0)},
			report.Row{What: what + "p99 back after", Goal: "≤ " + report.Since(v.limit), Ours: span(back, report.Duration), Met: report.AtMost(back[len(back)-1], float64(v.limit))},
			report.Row{What: what + "slowest read", Ours: span(slowest, report.Duration)},
		)
	}
	return rows, nil
}

// loseOnce reads from a fresh cluster while one of its replicas is lost, and says when that was.
func loseOnce(ctx context.Context, lose func(*pgcluster.Server)) (samples []sample, lost time.Duration, err error) {
	c, err := startCluster(ctx, 2)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		c.Replica(0).Thaw()
		err = errors.Join(err, c.Close())
	}()
	db, stop, err := openSplit(ctx, &dbsplit.Options{}, c.Primary().Addr(), c.Replica(0).Addr(), c.Replica(1).Addr())
	if err != nil {
		return nil, 0, err
	}
	defer stop()
	var mu sync.Mutex
	var wg sync.WaitGroup
	begun := time.Now()
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for time.Since(begun) < before+afterwards {
		<-tick.C
		if lost == 0 && time.Since(begun) >= before {
			lost = time.Since(begun)
			lose(c.Replica(0))
		}
		wg.Go(func() {
			s := sample{begun: time.Since(begun)}
			one, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			s.failed = readOne(one, db.Read()) != nil
			s.took = time.Since(begun) - s.begun
			mu.Lock()
			defer mu.Unlock()
			samples = append(samples, s)
		})
	}
	wg.Wait()
	return samples, lost, nil
}

// judgeLoss says how many reads failed, how long after the loss those that are begun are as quick as before, in ns, and how
// long the slowest took.
func judgeLoss(samples []sample, lost time.Duration) (failed, back, slowest float64) {
	var usual []time.Duration
	bySlice := make(map[int][]time.Duration)
	last := 0
	for _, s := range samples {
		if s.failed {
			failed++
		}
		if s.begun < lost {
			if s.begun > before/2 {
				usual = append(usual, s.took)
			}
			continue
		}
		slowest = max(slowest, float64(s.took))
		i := int((s.begun - lost) / slice)
		bySlice[i] = append(bySlice[i], s.took)
		last = max(last, i)
	}
	limit := max(10*time.Millisecond, 2*p99(usual))
	calm := 0
	for i := range last {
		if calm++; p99(bySlice[i]) > limit {
			calm = 0
		}
		if calm == calmSlices {
			return failed, float64(time.Duration(i+1-calmSlices) * slice), slowest
		}
	}
	return failed, math.Inf(1), slowest
}

func p99(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[(len(all)*99-1)/100]
}
