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
	"otter: GetIfPresent, of values that never end and of values that do; sturdyc: Get, 64 shards."

const (
	insideKeys  = 100_000
	insideBatch = 2_000 // look-ups of a caller in one operation
)

// look makes callers look up at a time, each batch of what was drawn.
func look(name string, callers, batch int, drawn []string, get func(id string) bool) pairs.Contender {
	at := 0
	return pairs.Contender{Name: name, Op: func(context.Context) error {
		var wg sync.WaitGroup
		missed := make([]bool, callers)
		work := func(caller, at int) {
			for _, id := range drawn[at : at+batch] {
				if !get(id) {
					missed[caller] = true
				}
			}
		}
		for caller := range callers {
			at = (at + batch) % (len(drawn) - batch)
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

// insides are caches that have everything.
type insides struct {
	drawn  []string
	view   *cache.View[lead]
	tagged *cache.View[lead]
	otter  *otter.Cache[string, lead]
	ending *otter.Cache[string, lead] // whose values have an end, as the cache's have
	sturdy *sturdyc.Client[lead]
}

func (l *lab) insides(ctx context.Context) (_ *insides, stop func(), err error) {
	if err := l.servers(ctx); err != nil {
		return nil, nil, err
	}
	s, err := l.store()
	if err != nil {
		return nil, nil, err
	}
	stop = running(ctx, s)
	defer func() {
		if err != nil {
			stop()
		}
	}()
	all := ids(insideKeys)
	in := &insides{
		drawn: zipf(all, 1<<20),
		view:  cache.Of[lead](s, "lead", cache.TTL(time.Hour), cache.InProcess(cache.Local{Entries: 2 * insideKeys, Bytes: 512 << 20})),
		tagged: cache.Of[lead](s, "tagged", cache.TTL(time.Hour), cache.InProcess(cache.Local{Entries: 2 * insideKeys, Bytes: 512 << 20}),
			cache.Tags(func(id string, _ lead) []string { return []string{"group-" + id[len(id)-2:]} })),
		otter:  otter.Must(&otter.Options[string, lead]{MaximumSize: 2 * insideKeys}),
		ending: otter.Must(&otter.Options[string, lead]{MaximumSize: 2 * insideKeys, ExpiryCalculator: otter.ExpiryWriting[string, lead](time.Hour)}),
		sturdy: sturdyc.New[lead](2*insideKeys, 64, time.Hour, 10),
	}
	for _, view := range []*cache.View[lead]{in.view, in.tagged} {
		if err = fill(ctx, view, all); err != nil {
			return nil, nil, err
		}
	}
	for _, id := range all {
		in.otter.Set(id, leadOf(id))
		in.ending.Set(id, leadOf(id))
		in.sturdy.Set(id, leadOf(id))
	}
	// A second store's entries are dropped by the news of its own fill, so look until all of them are kept.
	err = eventually("all is kept in the process", func() bool {
		time.Sleep(50 * time.Millisecond)
		for i := 0; i < len(all); i += 1000 {
			for _, view := range []*cache.View[lead]{in.view, in.tagged} {
				if found, err := view.GetMany(ctx, all[i:i+1000]); err != nil || len(found) != 1000 {
					return false
				}
			}
		}
		h := s.HitRate().Total.ByResult
		l1 := h["l1"]
		for i := 0; i < len(all); i += 1000 {
			_, _ = in.view.GetMany(ctx, all[i:i+1000])
			_, _ = in.tagged.GetMany(ctx, all[i:i+1000])
		}
		return s.HitRate().Total.ByResult["l1"]-l1 == 2*insideKeys
	})
	return in, stop, err
}

// contenders are cache, otter, sturdyc, cache with a tag, and otter with ends.
func (in *insides) contenders(callers, batch int) []pairs.Contender {
	background := context.Background()
	return []pairs.Contender{
		look("cache", callers, batch, in.drawn, func(id string) bool { _, err := in.view.Get(background, id); return err == nil }),
		look("otter", callers, batch, in.drawn, func(id string) bool { _, ok := in.otter.GetIfPresent(id); return ok }),
		look("sturdyc", callers, batch, in.drawn, func(id string) bool { _, ok := in.sturdy.Get(id); return ok }),
		look("cache, a tag", callers, batch, in.drawn, func(id string) bool { _, err := in.tagged.Get(background, id); return err == nil }),
		look("otter, ends", callers, batch, in.drawn, func(id string) bool { _, ok := in.ending.GetIfPresent(id); return ok }),
	}
}

func (l *lab) inside(ctx context.Context) ([]report.Row, error) {
	in, stop, err := l.insides(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	var rows []report.Row
	was := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(was)
	for _, cpus := range []int{1, runtime.NumCPU()} {
		runtime.GOMAXPROCS(cpus)
		r, err := l.run(ctx, in.contenders(cpus, insideBatch)...)
		if err != nil {
			return nil, err
		}
		for i := range r {
			r[i] = each(r[i], insideBatch*cpus)
		}
		rows = append(rows,
			row(fmt.Sprintf("%d CPU: cache, peer otter", cpus), "≤ 1.5 ×, 0 allocs", r[0], r[1], 1.5, report.AtMost(r[0].Allocs, 0.05)),
			row(fmt.Sprintf("%d CPU: cache, peer otter whose values have an end", cpus), "", r[0], r[4], 0),
			row(fmt.Sprintf("%d CPU: cache, peer sturdyc", cpus), "≤ 1 ×", r[0], r[2], 1),
			row(fmt.Sprintf("%d CPU: cache with a tag, peer otter", cpus), "≤ 1.5 ×, 0 allocs", r[3], r[1], 1.5, report.AtMost(r[3].Allocs, 0.05)))
	}
	return rows, nil
}
