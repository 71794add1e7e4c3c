package simulate

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/cache"
)

// lease lets two or three processes load, look up and invalidate a few keys. What a Delete has returned for is never
// stored again from before it; one process loads a key at a time, but where a delete or a fault came between; a look-up
// ends with RedisTimeout, a load with the loader and the claim of one that died.
func lease(w *world) {
	const lasts = 30 * time.Second
	w.slowest, w.late = w.between(0, 60*time.Millisecond), w.between(0, 30*time.Millisecond)
	names := []string{"process 0", "process 1", "process 2"}[:2+w.IntN(2)]
	if w.IntN(4) > 0 {
		w.plague(lasts, 6*time.Second, names...)
	}
	o := &origin{world: w, versions: map[string]int{}, deleted: map[string]int{}, own: map[string]int{}, loads: map[string][]*stretch{}, deletes: map[string][]*stretch{}}
	var views []*cache.View[int]
	for _, name := range names {
		store, err := cache.New(w.client(name), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		views = append(views, cache.Of[int](store, "v", cache.TTL(w.between(time.Second, time.Minute)), cache.Jitter(0)))
	}
	var calls sync.WaitGroup
	for w.now() < lasts {
		time.Sleep(w.between(0, 400*time.Millisecond))
		p, key := w.IntN(len(views)), strconv.Itoa(w.IntN(2))
		view, name := views[p], names[p]
		switch w.IntN(6) {
		case 0:
			calls.Go(func() { o.change(name, key, view) })
		case 1:
			calls.Go(func() { o.look(name, key, view) })
		default:
			calls.Go(func() { o.load(name, key, view) })
		}
	}
	calls.Wait()
	time.Sleep(time.Minute) // what is still stored late, is stored by now
	for i, name := range names {
		for key := range 2 {
			o.look(name, strconv.Itoa(key), views[i])
		}
	}
	w.end()
}

// origin is what the cache stands before.
type origin struct {
	*world
	lock     sync.Mutex
	versions map[string]int        // by key
	deleted  map[string]int        // the version that the last Delete has returned for
	own      map[string]int        // the same, by process and key
	loads    map[string][]*stretch // by key
	deletes  map[string][]*stretch
}

// stretch is when something was under way.
type stretch struct {
	from, until time.Duration // until is 0 while it is
}

func (o *origin) change(name, key string, view *cache.View[int]) {
	o.lock.Lock()
	o.versions[key]++
	version := o.versions[key]
	s := &stretch{from: o.now()}
	o.deletes[key] = append(o.deletes[key], s)
	o.lock.Unlock()
	o.note("%s deletes %s, now at %d", name, key, version)
	err := view.Delete(context.Background(), key)
	o.note("%s has deleted %s before %d: %s", name, key, version, outcome(err))
	o.lock.Lock()
	defer o.lock.Unlock()
	if err != nil {
		return // whether it was deleted, and when, is not known
	}
	s.until = o.now()
	o.deleted[key] = max(o.deleted[key], version)
	o.own[name+key] = max(o.own[name+key], version)
}

func (o *origin) look(name, key string, view *cache.View[int]) {
	o.lock.Lock()
	least := o.deleted[key]
	o.lock.Unlock()
	began := o.now()
	version, err := view.Get(context.Background(), key)
	o.note("%s finds %s at %d: %s", name, key, version, outcome(err))
	if err == nil && version < least {
		o.violated("%s found version %d of %s after version %d was made known by a Delete", name, version, key, least)
	}
	if took := o.now() - began; took > 250*time.Millisecond+2*grid {
		o.violated("%s looked for %s for %v", name, key, took)
	}
	if err != nil && !errors.Is(err, cache.ErrMiss) {
		o.violated("%s looks for %s: %v", name, key, err)
	}
}

func (o *origin) load(name, key string, view *cache.View[int]) {
	o.lock.Lock()
	least := o.own[name+key]
	o.lock.Unlock()
	began := o.now()
	version, err := view.Load(context.Background(), key, func(context.Context, string) (int, error) {
		o.lock.Lock()
		version := o.versions[key]
		s := &stretch{from: o.now()}
		o.loads[key] = append(o.loads[key], s)
		o.alone(key)
		o.lock.Unlock()
		o.note("%s loads %s at %d", name, key, version)
		o.work(o.takes(name, key))
		o.note("%s has loaded %s at %d", name, key, version)
		o.lock.Lock()
		s.until = o.now()
		o.lock.Unlock()
		return version, nil
	})
	o.note("%s gets %s at %d: %s", name, key, version, outcome(err))
	if err != nil || version < least {
		o.violated("%s got version %d of %s after its own Delete of what was before %d: %v", name, version, key, least, err)
	}
	if took := o.now() - began; took > 20*time.Second {
		o.violated("%s waited %v for %s", name, took, key)
	}
}

// takes is how long a load takes: one in five is slow, and outlives its claim unless that is kept up.
func (o *origin) takes(name, key string) time.Duration {
	n := o.draw(name, key, o.now())
	if n%5 == 0 {
		return time.Second + time.Duration(n%uint64(5*time.Second))
	}
	return time.Duration(n % uint64(40*time.Millisecond))
}

// alone says whether the load that has just begun is the only one that may be under way. o.lock is held.
func (o *origin) alone(key string) {
	last := o.loads[key][len(o.loads[key])-1]
	for _, other := range o.loads[key] {
		// What was sent before the first one began may arrive while it runs.
		if other == last || other.until != 0 || o.disturbed(key, other.from-time.Second, last.from) {
			continue
		}
		o.violated("%s is loaded twice at a time, since %v and since %v", key, other.from, last.from)
	}
}

// disturbed says whether a delete or a fault gives a second load leave. A claim that could not be kept up ends after 3 s.
func (o *origin) disturbed(key string, from, until time.Duration) bool {
	for _, d := range o.deletes[key] {
		if d.from <= until && (d.until == 0 || d.until >= from) {
			return true
		}
	}
	for _, f := range o.faults {
		if f.from <= until && f.until+3*time.Second >= from {
			return true
		}
	}
	return false
}
