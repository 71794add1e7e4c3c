package cachebench

import (
	"context"
	"fmt"
	"sync"
	"time"

	rediscache "github.com/go-redis/cache/v9"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/redisclient"
)

const (
	getNote = "One caller reads values that only Redis has and gets them decoded; the store is running, as in a service. All read the same bytes and decode the same JSON, but go-redis/cache, whose own form is MessagePack. " +
		"raw against itself shows the noise."
	crowdNote = "256 callers at once do the same: time for one read of all of them together, so 1/throughput. The goal is against the best of AutoPipeline and rueidis."
	manyNote  = "100 keys at a time, over all three masters: time of one call. The peer is one go-redis pipeline of 100 GETs, decoded and put into a map, too."

	getKeys = 10_000
)

// readers are the ways to read one id, by name.
type readers struct {
	names []string
	read  map[string]func(ctx context.Context, id string) error
	close []func()
}

func (l *lab) readers(ctx context.Context) (*readers, *cache.View[lead], string, error) {
	if err := l.servers(ctx); err != nil {
		return nil, nil, "", err
	}
	s, err := l.store()
	if err != nil {
		return nil, nil, "", err
	}
	view := cache.Of[lead](s, "lead", cache.TTL(time.Hour))
	prefix := fmt.Sprintf("bench%d:lead:", l.stores)
	r := &readers{read: map[string]func(context.Context, string) error{}, close: []func(){running(ctx, s)}}
	if err := fill(ctx, view, ids(getKeys)); err != nil {
		r.end()
		return nil, nil, "", err
	}
	add := func(name string, read func(ctx context.Context, id string) error) {
		r.names, r.read[name] = append(r.names, name), read
	}
	add("cache", func(ctx context.Context, id string) error { _, err := view.Get(ctx, id); return err })
	plain := func(c redis.Cmdable) func(context.Context, string) error {
		return func(ctx context.Context, id string) error {
			raw, err := c.Get(ctx, prefix+id).Bytes()
			if err != nil {
				return err
			}
			_, err = decode(raw)
			return err
		}
	}
	add("raw", plain(l.rdb))
	add("raw again", plain(l.rdb))

	other := redisclient.New(redisclient.Options(l.cluster.Addrs()...))
	r.close = append(r.close, func() { _ = other.Close() })
	auto, err := other.(*redis.ClusterClient).AutoPipeline()
	if err != nil {
		r.end()
		return nil, nil, "", err
	}
	add("AutoPipeline", plain(auto))

	ru, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: l.cluster.Addrs(), DisableCache: true})
	if err != nil {
		r.end()
		return nil, nil, "", err
	}
	r.close = append(r.close, ru.Close)
	add("rueidis", func(ctx context.Context, id string) error {
		raw, err := ru.Do(ctx, ru.B().Get().Key(prefix+id).Build()).AsBytes()
		if err != nil {
			return err
		}
		_, err = decode(raw)
		return err
	})

	rc := rediscache.New(&rediscache.Options{Redis: l.rdb})
	for _, id := range ids(getKeys) {
		if err := rc.Set(&rediscache.Item{Ctx: ctx, Key: "gc:" + id, Value: leadOf(id), TTL: time.Hour}); err != nil {
			r.end()
			return nil, nil, "", err
		}
	}
	add("go-redis/cache", func(ctx context.Context, id string) error {
		var l lead
		return rc.Get(ctx, "gc:"+id, &l)
	})
	return r, view, prefix, nil
}

func (r *readers) end() {
	for _, f := range r.close {
		f()
	}
}

// contenders read by callers at a time, each a number of reads in one operation.
func (r *readers) contenders(callers, reads int) []pairs.Contender {
	all := ids(getKeys)
	var out []pairs.Contender
	for _, name := range r.names {
		read, at := r.read[name], 0
		out = append(out, pairs.Contender{Name: name, Op: func(ctx context.Context) error {
			if callers == 1 {
				at++
				return read(ctx, all[at%len(all)])
			}
			var wg sync.WaitGroup
			errs := make([]error, callers)
			for caller := range callers {
				from := at + caller*reads
				wg.Go(func() {
					for i := range reads {
						if err := read(ctx, all[(from+i)%len(all)]); err != nil {
							errs[caller] = err
							return
						}
					}
				})
			}
			at += callers * reads
			wg.Wait()
			for _, err := range errs {
				if err != nil {
					return err
				}
			}
			return nil
		}})
	}
	return out
}

func (l *lab) get(ctx context.Context) ([]report.Row, error) {
	r, _, _, err := l.readers(ctx)
	if err != nil {
		return nil, err
	}
	defer r.end()
	results, err := l.run(ctx, r.contenders(1, 1)...)
	if err != nil {
		return nil, err
	}
	by := named(results)
	goal, limit := throughput(0.95)
	ours, raw := by["cache"], by["raw"]
	rows := []report.Row{
		row("raw again, peer raw", "", by["raw again"], raw, 0),
		row("cache, peer raw", goal+", ≤ +5 allocs", ours, raw, limit, report.AtMost(ours.Allocs-raw.Allocs, 5+tolerance)),
	}
	for _, name := range []string{"AutoPipeline", "rueidis", "go-redis/cache"} {
		rows = append(rows, row("cache, peer "+name, "", ours, by[name], 0))
	}
	tail, err := l.tails(ctx, r)
	return append(rows, tail), err
}

// tails compares the slow ends of single reads.
func (l *lab) tails(ctx context.Context, r *readers) (report.Row, error) {
	rounds := 40
	if l.quick {
		rounds = 10
	}
	var p99 [2]pairs.Result
	all := ids(getKeys)
	for range rounds {
		for i, name := range []string{"cache", "raw"} {
			took := make([]time.Duration, 500)
			for n := range took {
				begun := time.Now()
				if err := r.read[name](ctx, all[n]); err != nil {
					return report.Row{}, err
				}
				took[n] = time.Since(begun)
			}
			p99[i].Rounds = append(p99[i].Rounds, float64(percentile(took, 99)))
			p99[i].Allocs = -1
		}
	}
	return row("99th percentile of 500 reads: cache, peer raw", "≤ 1.1 ×", p99[0], p99[1], 1.1), nil
}

func named(results []pairs.Result) map[string]pairs.Result {
	by := map[string]pairs.Result{}
	for _, r := range results {
		by[r.Name] = r
	}
	return by
}

func (l *lab) crowd(ctx context.Context) ([]report.Row, error) {
	r, _, _, err := l.readers(ctx)
	if err != nil {
		return nil, err
	}
	defer r.end()
	const callers, reads = 256, 20
	results, err := l.run(ctx, r.contenders(callers, reads)...)
	if err != nil {
		return nil, err
	}
	for i := range results {
		results[i] = each(results[i], callers*reads)
	}
	by := named(results)
	best := by["AutoPipeline"]
	if by["rueidis"].Time().Median < best.Time().Median {
		best = by["rueidis"]
	}
	goal, limit := throughput(0.9)
	rows := []report.Row{row("cache, peer "+best.Name+", the best", goal, by["cache"], best, limit)}
	for _, name := range []string{"AutoPipeline", "rueidis", "raw", "go-redis/cache"} {
		if name != best.Name {
			rows = append(rows, row("cache, peer "+name, "", by["cache"], by[name], 0))
		}
	}
	return rows, nil
}

func (l *lab) many(ctx context.Context) ([]report.Row, error) {
	r, view, prefix, err := l.readers(ctx)
	if err != nil {
		return nil, err
	}
	defer r.end()
	all := ids(getKeys)
	const n = 100
	at := 0
	next := func() []string {
		at = (at + n) % len(all)
		return all[at : at+n]
	}
	results, err := l.run(ctx,
		pairs.Contender{Name: "cache", Op: func(ctx context.Context) error {
			found, err := view.GetMany(ctx, next())
			if err == nil && len(found) != n {
				err = fmt.Errorf("%d of %d found", len(found), n)
			}
			return err
		}},
		pairs.Contender{Name: "raw", Op: func(ctx context.Context) error {
			pipe, found := l.rdb.Pipeline(), make(map[string]lead, n)
			ids := next()
			gets := make([]*redis.StringCmd, n)
			for i, id := range ids {
				gets[i] = pipe.Get(ctx, prefix+id)
			}
			if _, err := pipe.Exec(ctx); err != nil {
				return err
			}
			for i, id := range ids {
				raw, err := gets[i].Bytes()
				if err != nil {
					return err
				}
				if found[id], err = decode(raw); err != nil {
					return err
				}
			}
			return nil
		}})
	if err != nil {
		return nil, err
	}
	goal, limit := throughput(0.95)
	return []report.Row{row("cache, peer raw", goal, results[0], results[1], limit)}, nil
}
