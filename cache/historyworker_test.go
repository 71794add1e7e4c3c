package cache

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/redisclient"
)

// historyEnv makes the test binary a process of the history: the value is its workerConfig.
const historyEnv = "CACHE_TEST_WORKER"

type workerConfig struct {
	Number, Workers int
	Redis           []string
	Prefix          string
	Board           string
	Base            time.Time
	Seed            uint64
	Bound           time.Duration // for what other processes invalidate
	Readers         int
	Writers         int
	Callers         int // at a gate
	RedisTimeout    time.Duration
	Lag             time.Duration // of a standby that loads may read from
}

// worker is one process of the history.
type worker struct {
	workerConfig
	board  *board
	clock  stopwatch
	store  *Store
	views  [3]*View[int64]
	gated  *View[int64]
	begins beginTally
	said   atomic.Int64
	swept  sync.Map // of view and decade: the last report
}

const historyTags = 16

func historyTag(key int) string { return "g" + strconv.Itoa(key%historyTags) }

// historyOwnTag is a tag that no other key has.
func historyOwnTag(key int) string { return "own" + strconv.Itoa(key) }

func historyID(key int) string { return fmt.Sprintf("%03d", key) }

func historySystem(key int) uint64 { return uint64(key) + 1 }

// setClass are keys that one process alone writes, with Set: two writers may set in another order than they committed.
func setClass(key int) bool { return key >= 200 }

// runWorker works until its input ends, which is the end of the test.
func runWorker() error {
	var w worker
	if err := json.Unmarshal([]byte(os.Getenv(historyEnv)), &w.workerConfig); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var err error
	if w.board, _, err = mapBoard(w.Board); err != nil {
		return err
	}
	w.clock = newStopwatch(w.Base)
	rdb := redisclient.New(redisclient.Options(w.Redis...))
	defer rdb.Close()
	rdb.AddHook(&w.begins)
	if w.store, err = New(rdb, &Options{Prefix: w.Prefix, RedisTimeout: cmp.Or(w.RedisTimeout, 500*time.Millisecond), MaxLoads: 256}); err != nil {
		return err
	}
	tags := Tags(func(id string, _ int64) []string {
		key, _ := strconv.Atoi(id)
		return []string{historyTag(key), historyOwnTag(key)}
	})
	w.views = [3]*View[int64]{
		Of[int64](w.store, "a", TTL(30*time.Second), InProcess(Local{}), tags),
		Of[int64](w.store, "b", TTL(500*time.Millisecond), StaleWhileRevalidate(500*time.Millisecond), StaleIfError(time.Second), EarlyRefresh(1), InProcess(Local{Entries: 50}), tags),
		Of[int64](w.store, "c", TTL(2*time.Second), tags),
	}
	w.gated = Of[int64](w.store, "gated", TTL(time.Minute), InProcess(Local{}))
	for began := time.Now(); ; { // the machine may be busy with the other processes
		if err = w.store.Ready(ctx); err == nil {
			break
		}
		if time.Since(began) > 20*time.Second || sleep(ctx, 50*time.Millisecond) != nil {
			return err
		}
	}
	ran := make(chan error, 1)
	go func() { ran <- w.store.Run(ctx) }()
	fmt.Println("ready")

	var all sync.WaitGroup
	all.Go(func() { w.answerGates(ctx) })
	all.Go(func() { w.beat(ctx, rdb) })
	for n := range w.Readers {
		all.Go(func() { w.read(ctx, rand.New(rand.NewPCG(w.Seed, uint64(w.Number)<<16|uint64(n)))) })
	}
	for n := range w.Writers {
		all.Go(func() { w.write(ctx, n, rand.New(rand.NewPCG(w.Seed, uint64(w.Number)<<16|uint64(n)|1<<15))) })
	}
	for w.board.stop.Load() == 0 && sleep(ctx, 20*time.Millisecond) == nil {
	}
	all.Wait()
	w.takeStock(ctx)
	<-ctx.Done()
	return <-ran
}

func (w *worker) counts() *phaseCounts { return &w.board.phases[w.board.phase.Load()] }

func (w *worker) view(key int) *View[int64] { return w.views[key%len(w.views)] }

func (w *worker) complain(format string, args ...any) {
	w.board.violations.Add(1)
	if w.said.Add(1) <= 10 {
		fmt.Printf("%s violation process %d phase %d: %s\n", time.Now().Format("15:04:05.000000"), w.Number, w.board.phase.Load(), fmt.Sprintf(format, args...))
	}
}

// working waits while nobody is to work, and says whether to go on.
func (w *worker) working(ctx context.Context) bool {
	for w.board.quiet.Load() != 0 && w.board.stop.Load() == 0 {
		if sleep(ctx, 5*time.Millisecond) != nil {
			return false
		}
	}
	return w.board.stop.Load() == 0 && ctx.Err() == nil
}

// read reads and judges what it gets.
func (w *worker) read(ctx context.Context, dice *rand.Rand) {
	zipf := rand.NewZipf(dice, 1.1, 8, boardKeys-1)
	pick := func() int { return int(zipf.Uint64()) * 7 % boardKeys } // 7 spreads the hot ones over views and classes
	for n := 1; w.working(ctx); n++ {
		key := pick()
		v, id := w.view(key), historyID(key)
		start := w.clock.now()
		switch how := dice.IntN(100); {
		case how < 10: // somebody who knows of a commit, invalidated or not
			w.readKnowing(ctx, key)
		case how < 15:
			got, err := v.Get(ctx, id)
			w.saw(ctx, key, got, err, start)
		case how < 20:
			keys := map[string]int{id: key}
			ids := []string{id}
			for len(ids) < 6 {
				if other := pick(); other%len(w.views) == key%len(w.views) {
					ids, keys[historyID(other)] = append(ids, historyID(other)), other
				}
			}
			got, err := v.GetMany(ctx, ids)
			if dice.IntN(2) == 0 {
				got, err = v.LoadMany(ctx, ids[:maxTokens], w.originOfMany) // each key has a database of its own
			}
			if err != nil {
				w.counts().failed.Add(1)
			}
			for id, value := range got {
				w.saw(ctx, keys[id], value, nil, start)
			}
		case how < 30:
			got, err := v.Load(ctx, id, w.origin)
			w.saw(ctx, key, got, err, start)
		default: // mostly what is in the process
			for range 48 {
				for key = pick(); w.view(key).near == nil; key = pick() {
				}
				if dice.IntN(8) == 0 {
					w.readKnowing(ctx, key)
					continue
				}
				start = w.clock.now()
				got, err := w.view(key).Load(ctx, historyID(key), w.origin)
				w.saw(ctx, key, got, err, start)
			}
		}
		if n%32 == 0 {
			_ = sleep(ctx, 8*time.Millisecond) // the servers have the same two cores
		}
	}
}

// readKnowing reads as somebody who knows of the last commit, be it invalidated or not.
func (w *worker) readKnowing(ctx context.Context, key int) {
	floor := w.board.keys[key].version.Load()
	wctx, mark := scaleaware.WithWatermark(ctx)
	mark.Raise(scaleaware.Token{System: historySystem(key), Timeline: 1, LSN: scaleaware.LSN(floor)})
	v, start := w.view(key), w.clock.now()
	got, err := v.Load(wctx, historyID(key), w.origin)
	w.counts().tokens.Add(1)
	w.saw(ctx, key, got, err, start)
	if err == nil && got < floor {
		w.complain("key %s of view %s gave %d to a caller who knew %d", historyID(key), v.name, got, floor)
	}
}

func (w *worker) saw(ctx context.Context, key int, version int64, err error, start int64) {
	counts := w.counts()
	counts.reads.Add(1)
	w.board.reads.Add(1)
	if err != nil {
		if !errors.Is(err, ErrMiss) {
			counts.failed.Add(1)
		}
		return
	}
	text, lost := w.board.judge(key, version, start, w.Number, w.Bound)
	if lost != 0 { // in Redis: what the process keeps knows of it
		if since := w.keptSince(key, version); since != 0 && since < lost {
			text = fmt.Sprintf("version %d, which the process keeps since %v and %s had removed at %v", version, time.Duration(since), invalidators[lost&7], time.Duration(lost))
		}
	}
	if text != "" {
		w.complain("key %s of view %s gave %s; %s", historyID(key), w.view(key).name, text, w.diagnose(ctx, key))
	}
}

// keptSince is since when the process keeps a version, if it would be given to anybody, or 0.
func (w *worker) keptSince(key int, version int64) int64 {
	v := w.view(key)
	if v.near == nil {
		return 0
	}
	r := v.near.get(w.store, historyID(key), w.store.now())
	if r == nil || r.value != version {
		return 0
	}
	return int64(w.clock.offset + w.store.born.Add(r.rest.kept).Sub(w.clock.born))
}

// diagnose says where an old version may have come from.
func (w *worker) diagnose(ctx context.Context, key int) string {
	v, id := w.view(key), historyID(key)
	text := "now the process has nothing"
	if v.near != nil {
		if r := v.near.get(w.store, id, w.store.now()); r != nil {
			text = fmt.Sprintf("now the process has %d (%x, epoch %d)", r.value, r.rest.header.gen, r.rest.header.epoch)
		}
	}
	raw, err := w.store.rdb.Get(ctx, v.prefix+id).Bytes()
	h, payload, _ := parseHeader(raw)
	text = fmt.Sprintf("%s, Redis %q (%c, %x, epoch %d, %v); cover %v", text, payload, h.kind, h.gen, h.epoch, err, w.store.coverage.at(w.store.coverage.slot(v.prefix+id), w.store.now()) != nil)
	if t := w.store.tags.get(hashTag(historyTag(key))); t != nil {
		text += fmt.Sprintf("; the tag is known as of %d, read at %s", t.epoch, t.cover.addr)
	}
	if last, ok := w.swept.Load(v.name + id[:2]); ok {
		text += fmt.Sprintf("; last swept here: %v", last)
	}
	for _, addr := range w.Redis {
		text += "; " + w.at(ctx, addr, v.prefix+id, key)
	}
	return text
}

// at says what one server has of a key, of its tag and of the rules.
func (w *worker) at(ctx context.Context, addr, key string, n int) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	node := redis.NewClient(redisclient.Options(addr).Simple())
	defer node.Close()
	conn := node.Conn()
	defer conn.Close()
	conn.Do(ctx, "READONLY")
	role, _ := conn.Do(ctx, "ROLE").Slice()
	text := "at " + addr
	if len(role) > 0 {
		text += fmt.Sprint(" ", role[0])
	}
	if raw, err := conn.Get(ctx, key).Bytes(); err == nil || errors.Is(err, redis.Nil) {
		h, payload, _ := parseHeader(raw)
		text += fmt.Sprintf(" the entry is %q (%x)", payload, h.gen)
	}
	if tag, err := conn.Get(ctx, w.store.tagKey(hashTag(historyTag(n)))).Result(); err == nil || errors.Is(err, redis.Nil) {
		text += " its tag " + tag
	}
	if rules, err := conn.HGetAll(ctx, w.store.rulesKey()).Result(); err == nil {
		text += fmt.Sprint(" rules ", rules)
	}
	return text
}

// write commits at the origin and then invalidates, again and again until that is acknowledged.
func (w *worker) write(ctx context.Context, number int, dice *rand.Rand) {
	for w.working(ctx) {
		_ = sleep(ctx, time.Duration(20+dice.IntN(80))*time.Millisecond)
		keys := []int{dice.IntN(boardKeys)}
		if dice.IntN(3) == 0 {
			keys[0] = dice.IntN(20) * 7 % boardKeys // a hot one
		}
		v := w.view(keys[0])
		var invalidate func(ctx context.Context) error
		how := byDelete
		switch n := dice.IntN(100); {
		case setClass(keys[0]) && (number != 0 || keys[0]%w.Workers != w.Number):
			continue
		case setClass(keys[0]):
			version := w.board.keys[keys[0]].raise(w.clock.now())
			w.until(ctx, bySet, keys, []int64{version}, func(ctx context.Context) error { return v.Set(ctx, historyID(keys[0]), version) })
			continue
		case w.Lag > 0 && n < 15:
			how = byTag
			invalidate = func(ctx context.Context) error { return w.store.InvalidateTags(ctx, historyOwnTag(keys[0])) }
		case w.Lag > 0 && n < 25:
			how = byPattern
			invalidate = func(ctx context.Context) error {
				_, err := w.store.Invalidate(ctx, v.name+":"+historyID(keys[0]))
				return err
			}
		case w.Lag > 0:
			invalidate = func(ctx context.Context) error { return v.Delete(ctx, historyID(keys[0])) }
		case n < 2:
			how = byTag
			tag := historyTag(keys[0])
			keys = keys[:0]
			for key := range 200 {
				if historyTag(key) == tag {
					keys = append(keys, key)
				}
			}
			invalidate = func(ctx context.Context) error { return w.store.InvalidateTags(ctx, tag) }
		case n < 5:
			how = byPattern
			decade := keys[0] / 10
			keys = keys[:0]
			for key := decade * 10; key < decade*10+10; key++ {
				if w.view(key) == v {
					keys = append(keys, key)
				}
			}
			pattern := fmt.Sprintf("%s:%02d?", v.name, decade)
			invalidate = func(ctx context.Context) error {
				report, err := w.store.Invalidate(ctx, pattern)
				w.swept.Store(fmt.Sprintf("%s%02d", v.name, decade), fmt.Sprintf("%+v at %v", report, time.Duration(w.clock.now())))
				return err
			}
			if dice.IntN(3) == 0 { // as by one who dies before the sweep
				how = byRule
				invalidate = func(ctx context.Context) error { _, err := w.store.bar(ctx, pattern, written(ctx)); return err }
			}
		default:
			invalidate = func(ctx context.Context) error { return v.Delete(ctx, historyID(keys[0])) }
		}
		versions := make([]int64, len(keys))
		ictx := ctx
		for i, key := range keys {
			versions[i] = w.board.keys[key].raise(w.clock.now())
		}
		if dice.IntN(4) == 0 {
			_ = sleep(ctx, 20*time.Millisecond) // committed, and not yet invalidated
		}
		if w.Lag > 0 || dice.IntN(4) == 0 {
			var mark *scaleaware.Watermark
			ictx, mark = scaleaware.WithWatermark(ctx)
			mark.Raise(scaleaware.Token{System: historySystem(keys[0]), Timeline: 1, LSN: scaleaware.LSN(versions[0])})
		}
		w.until(ictx, how, keys, versions, invalidate)
		if w.Lag > 0 && dice.IntN(4) == 0 { // an operator, who wrote nothing, takes away what has been loaded meanwhile
			_ = sleep(ctx, time.Duration(dice.IntN(30))*time.Millisecond)
			w.until(ctx, how, keys, versions, invalidate)
		}
	}
}

func (w *worker) until(ctx context.Context, how int64, keys []int, versions []int64, invalidate func(ctx context.Context) error) {
	for {
		err := invalidate(ctx)
		at := w.clock.now()
		if err == nil {
			w.counts().writes.Add(1)
			for i, key := range keys {
				w.board.keys[key].retired(versions[i], w.Number, at&^7|how)
			}
			return
		}
		w.counts().refused.Add(1)
		if w.board.stop.Load() != 0 || sleep(ctx, 20*time.Millisecond) != nil {
			return
		}
	}
}

// ends reports whether what is kept of a key ends within a moment.
func (w *worker) ends(ctx context.Context, v *View[int64], id string) bool {
	for range 50 {
		if v.near.get(w.store, id, w.store.now()) == nil {
			return true
		}
		_ = sleep(ctx, 10*time.Millisecond)
	}
	return false
}

// takeStock compares, when all is quiet, what the process keeps with Redis and the origin.
func (w *worker) takeStock(ctx context.Context) {
	stand := &w.board.stand[w.Number]
	for key := range boardKeys { // so that there is something
		_, _ = w.view(key).Load(ctx, historyID(key), w.origin)
	}
	for name, n := range w.store.counts() {
		if name != "gated" {
			stand.inProcess.Add(n[resultL1] + n[resultStale])
			stand.redis.Add(n[resultL2])
			stand.misses.Add(n[resultMiss])
		}
	}
	for key := range boardKeys {
		v, id, r := w.view(key), historyID(key), &w.board.keys[key]
		origin := r.version.Load()
		got, err := v.Get(ctx, id)
		if err == nil && got != origin && r.lossy(r.dead[got%boardRing].Load()) {
			w.counts().lost.Add(1) // a failover has brought it back until its TTL ends
			continue
		}
		if err == nil && got != origin {
			stand.bad.Add(1)
			w.complain("at rest key %s of view %s is %d, the origin has %d; %s", id, v.name, got, origin, w.diagnose(ctx, key))
		}
		if v.near == nil {
			continue
		}
		kept := v.near.get(w.store, id, w.store.now())
		if kept == nil {
			continue
		}
		stand.kept.Add(1)
		raw, err := w.store.rdb.Get(ctx, v.prefix+id).Bytes()
		h, _, parse := parseHeader(raw)
		if errors.Is(err, redis.Nil) && kept.value == origin && w.ends(ctx, v, id) {
			continue // its time in Redis is over, and here it is a round trip later
		}
		if kept.value != origin || err != nil || parse != nil || h.gen != kept.rest.header.gen || h.start != kept.rest.header.start {
			stand.bad.Add(1)
			w.complain("at rest the process keeps key %s of view %s as %d (%x), the origin has %d; %s", id, v.name, kept.value, kept.rest.header.gen, origin, w.diagnose(ctx, key))
		}
	}
	fmt.Println("stocked")
}
