package cachebench

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/viccon/sturdyc"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/cache"
)

const insideNote = "One typed Get of 100,000 keys that are all there, drawn by Zipf's law, with one caller and one CPU (GOMAXPROCS), then as many as there are: time for one of all " +
	"of them together. cache: a running store, covered by tracking, so that each hit looks at slot, clock, rules and the caller's watermark. " +
	"otter: GetIfPresent; sturdyc: Get, 64 shards."

const (
	insideKeys  = 100_000
	insideBatch = 2_000 // look-ups of a caller in one operation
)

// look makes callers look up at a time, each insideBatch of what was drawn.
func look(name string, callers int, drawn []string, get func(id string) bool) pairs.Contender {
	at := 0
	return pairs.Contender{Name: name, Op: func(context.Context) error {
		var wg sync.WaitGroup
		missed := make([]bool, callers)
		work := func(caller, at int) {
			for _, id := range drawn[at : at+insideBatch] {
				if !get(id) {
					missed[caller] = true
				}
			}
		}
		for caller := range callers {
			at = (at + insideBatch) % (len(drawn) - insideBatch)
			if callers == 1 {
				work(caller, at)
				continue
			}
			wg.Go(func() { work(caller, at) })
		}
		wg.Wait()
		for _, m := range missed {
			if m {
				return fmt.Errorf("%s: a value is not in the process", name)
			}
		}
		return nil
	}}
}

func (l *lab) inside(ctx context.Context) ([]report.Row, error) {
	if err := l.servers(ctx); err != nil {
		return nil, err
	}
	s, err := l.store()
	if err != nil {
		return nil, err
	}
	defer running(ctx, s)()
	view := cache.Of[lead](s, "lead", cache.TTL(time.Hour), cache.InProcess(cache.Local{Entries: 2 * insideKeys, Bytes: 512 << 20}))
	all := ids(insideKeys)
	if err := fill(ctx, view, all); err != nil {
		return nil, err
	}
	bare := otter.Must(&otter.Options[string, lead]{MaximumSize: 2 * insideKeys})
	sturdy := sturdyc.New[lead](2*insideKeys, 64, time.Hour, 10)
	for _, id := range all {
		bare.Set(id, leadOf(id))
		sturdy.Set(id, leadOf(id))
	}
	// A second store's entries are dropped by the news of its own fill, so look until all of them are kept.
	if err := eventually("all is kept in the process", func() bool {
		time.Sleep(50 * time.Millisecond)
		for i := 0; i < len(all); i += 1000 {
			if found, err := view.GetMany(ctx, all[i:i+1000]); err != nil || len(found) != 1000 {
				return false
			}
		}
		h := s.HitRate().Total.ByResult
		l1 := h["l1"]
		for i := 0; i < len(all); i += 1000 {
			_, _ = view.GetMany(ctx, all[i:i+1000])
		}
		return s.HitRate().Total.ByResult["l1"]-l1 == insideKeys
	}); err != nil {
		return nil, err
	}
	drawn := zipf(all, 1<<20)
	background := context.Background()
	var rows []report.Row
	was := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(was)
	for _, cpus := range []int{1, runtime.NumCPU()} {
		runtime.GOMAXPROCS(cpus)
		r, err := l.run(ctx,
			look("cache", cpus, drawn, func(id string) bool { _, err := view.Get(background, id); return err == nil }),
			look("otter", cpus, drawn, func(id string) bool { _, ok := bare.GetIfPresent(id); return ok }),
			look("sturdyc", cpus, drawn, func(id string) bool { _, ok := sturdy.Get(id); return ok }))
		if err != nil {
			return nil, err
		}
		for i := range r {
			r[i] = each(r[i], insideBatch*cpus)
		}
		rows = append(rows,
			row(fmt.Sprintf("%d CPU: cache, peer otter", cpus), "≤ 1.5 ×, 0 allocs", r[0], r[1], 1.5, report.AtMost(r[0].Allocs, 0.05)),
			row(fmt.Sprintf("%d CPU: cache, peer sturdyc", cpus), "≤ 1 ×", r[0], r[2], 1))
	}
	return rows, nil
}
