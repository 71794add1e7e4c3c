package simulate

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/pgwitness"
	"github.com/scaleaware/scaleaware/readonly/redisstore"
)

// epochs lets people switch read-only mode on and off on two or three instances that write all the time. No instance goes back
// to an earlier epoch, also when Redis has lost the state. From "held" until somebody disables the mode no instance lets a
// write in, and the database sees no commit of theirs. When all is well all obey the last change.
func epochs(w *world) {
	const lasts = 20 * time.Second
	w.slowest, w.late = w.between(0, 40*time.Millisecond), w.between(0, 40*time.Millisecond)
	names := []string{"instance 0", "instance 1", "instance 2"}[:2+w.IntN(2)]
	loses := w.IntN(4) == 0
	if !loses {
		plagued := names
		for _, name := range names {
			plagued = append(plagued[:len(plagued):len(plagued)], name+"'s database")
		}
		// An instance that is silent for a minute is taken for dead: no six faults may make as much.
		w.plague(lasts, 9*time.Second, plagued...)
	}
	b := &bench{world: w, loses: loses, epochs: map[string]uint64{}}
	db := newPostgres(w, func(process string) { b.wrote(process + " commits") })
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	var modes []*readonly.Switch
	for _, name := range names {
		store, err := redisstore.New(w.client(name), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		pool := db.pool(name + "'s database")
		witness, err := pgwitness.New(pool, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		mode, err := readonly.New(store, &readonly.Options{Instance: name, Poll: 500 * time.Millisecond, Witness: witness})
		if err != nil {
			w.t.Fatal(err)
		}
		modes = append(modes, mode)
		running.Go(func() { _ = mode.Run(ctx) })
		running.Go(func() { b.follow(ctx, name, mode) })
		running.Go(func() { b.write(ctx, name, mode, db, pool) })
		time.Sleep(w.between(0, 300*time.Millisecond))
	}
	var calls sync.WaitGroup
	turns := make([]chan struct{}, len(names)) // of an instance's changes: waiting for its mutex would stop the clock
	for n := range turns {
		turns[n] = make(chan struct{}, 1)
	}
	take := func(n int, change func()) {
		calls.Go(func() {
			turns[n] <- struct{}{}
			change()
			<-turns[n]
		})
	}
	for i := 0; w.now() < lasts; i++ {
		time.Sleep(w.between(0, 2*time.Second))
		n := w.IntN(len(names))
		change := readonly.Change{Reason: fmt.Sprint("reason ", i)}
		if w.IntN(5) == 0 {
			change.Until = time.Now().Add(w.between(100*time.Millisecond, 5*time.Second))
		}
		switch what := w.IntN(8); {
		case what < 4:
			take(n, func() { b.enable(names[n], modes[n], change) })
		case what < 7:
			take(n, func() { b.disable(names[n], modes[n]) })
		case loses:
			w.note("Redis loses everything")
			w.redis.FlushAll()
		}
	}
	calls.Wait()
	time.Sleep(5 * time.Second)
	last, _ := modes[0].State()
	for i, mode := range modes {
		if state, _ := mode.State(); state.Epoch != last.Epoch || state.ID != last.ID {
			w.violated("%s obeys epoch %d and %s epoch %d, 5s after all is well", names[0], last.Epoch, names[i], state.Epoch)
		}
	}
	w.end()
}

// bench watches the instances.
type bench struct {
	*world
	loses bool // Redis loses state, so that held is no proof

	lock   sync.Mutex
	epochs map[string]uint64 // the highest, by instance
	begun  int               // disables, and enables that end by themselves
	under  int               // those of them that are perhaps not over
	held   bool
	until  time.Time // the end that the mode sets itself, if any
}

// begin notes a change that may let writes in again, and returns what ends it.
func (b *bench) begin() (over func(stored bool)) {
	b.begun++
	b.under++
	b.held = false
	return func(stored bool) {
		if !stored {
			time.Sleep(time.Second) // it may be under way still
		}
		b.lock.Lock()
		defer b.lock.Unlock()
		b.under--
	}
}

func (b *bench) enable(name string, mode *readonly.Switch, change readonly.Change) {
	b.lock.Lock()
	b.note("%s enables until %v: %s", name, max(0, change.Until.Sub(b.began)), change.Reason)
	over := func(bool) {}
	own := 0
	if !change.Until.IsZero() {
		over, own = b.begin(), 1
	}
	begun := b.begun
	b.lock.Unlock()
	report, err := mode.Enable(context.Background(), change)
	b.lock.Lock()
	b.note("%s has enabled epoch %d: %s %s", name, report.Epoch, report.Phase, outcome(err))
	// A change that began meanwhile may have been stored after the proof.
	if report.Held && b.begun == begun && b.under == own && !b.loses {
		b.held, b.until = true, report.Until
	}
	b.lock.Unlock()
	over(err == nil)
}

func (b *bench) disable(name string, mode *readonly.Switch) {
	b.lock.Lock()
	b.note("%s disables", name)
	over := b.begin()
	b.lock.Unlock()
	report, err := mode.Disable(context.Background(), name)
	b.note("%s has disabled epoch %d: %s", name, report.Epoch, outcome(err))
	over(err == nil)
}

// wrote holds a write against what was said.
func (b *bench) wrote(what string) {
	b.lock.Lock()
	defer b.lock.Unlock()
	b.note("%s", what)
	if b.held && (b.until.IsZero() || time.Now().Before(b.until)) {
		b.violated("%s after held", what)
	}
}

// write writes all the time, as far as it may.
func (b *bench) write(ctx context.Context, name string, mode *readonly.Switch, db *postgres, pool *pgxpool.Pool) {
	for ctx.Err() == nil {
		b.work(millis(5 + b.draw(name, "rests", b.now())%200))
		done, err := mode.Begin(ctx)
		if err != nil {
			continue
		}
		b.wrote(name + " writes")
		hurry, cancel := context.WithTimeout(ctx, time.Second)
		err = db.insert(hurry, pool, name)
		cancel()
		b.note("%s has written: %s", name, outcome(err))
		done()
	}
}

// follow sees what an instance obeys.
func (b *bench) follow(ctx context.Context, name string, mode *readonly.Switch) {
	for ctx.Err() == nil {
		changed := mode.Changed()
		state, _ := mode.State()
		b.lock.Lock()
		if state.Epoch != b.epochs[name] {
			b.note("%s obeys epoch %d", name, state.Epoch)
		}
		if state.Epoch < b.epochs[name] {
			b.violated("%s goes back from epoch %d to %d", name, b.epochs[name], state.Epoch)
		}
		b.epochs[name] = state.Epoch
		b.lock.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func millis(n uint64) time.Duration { return time.Duration(n) * time.Millisecond }
