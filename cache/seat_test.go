package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// nest is a store whose loaders load.
type nest struct {
	views     []*View[lead]
	now, most atomic.Int64 // loads that wait for none, at a time
	leaves    atomic.Int64
}

func newNest(t *testing.T, depth int, o *Options) *nest {
	s, n := newLocal(t, o), &nest{}
	for i := range depth {
		n.views = append(n.views, Of[lead](s, fmt.Sprint("depth", i), InProcess(Local{})))
	}
	return n
}

// load loads at a depth, where the loader waits for what parts lets it load of the next; the last one takes a while.
func (n *nest) load(ctx context.Context, depth int, id string, parts func(ctx context.Context, depth int, id string) error) error {
	if depth == len(n.views) {
		return nil
	}
	_, err := n.views[depth].Load(ctx, id, func(ctx context.Context, id string) (lead, error) {
		if depth < len(n.views)-1 {
			return lead{ID: id}, parts(ctx, depth+1, id)
		}
		return lead{ID: id}, n.leaf(ctx)
	})
	return err
}

func (n *nest) leaf(ctx context.Context) error {
	n.leaves.Add(1)
	now := n.now.Add(1)
	defer n.now.Add(-1)
	for most := n.most.Load(); now > most && !n.most.CompareAndSwap(most, now); most = n.most.Load() {
	}
	return sleep(ctx, 100*time.Millisecond)
}

// each does things at once, and waits for all.
func each(n int, do func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// However loads are nested, they end, also where all turns are those of loaders that wait, and no more than MaxLoads of those
// that wait for none run at a time.
func TestNestedLoadsAreBoundedAndEnd(t *testing.T) {
	type parts = func(ctx context.Context, depth int, id string) error
	shapes := map[string]func(n *nest) parts{
		"in sequence": func(n *nest) (p parts) {
			p = func(ctx context.Context, depth int, id string) (err error) {
				for i := range 3 {
					err = errors.Join(err, n.load(ctx, depth, fmt.Sprint(id, i), p))
				}
				return err
			}
			return p
		},
		"in parallel": func(n *nest) (p parts) {
			p = func(ctx context.Context, depth int, id string) error {
				return each(5, func(i int) error { return n.load(ctx, depth, fmt.Sprint(id, i), p) })
			}
			return p
		},
		"shared with others": func(n *nest) (p parts) {
			p = func(ctx context.Context, depth int, _ string) error {
				return each(5, func(i int) error { return n.load(ctx, depth, fmt.Sprint(i), p) })
			}
			return p
		},
		"many together": func(n *nest) (p parts) {
			p = func(ctx context.Context, depth int, id string) error {
				return each(5, func(i int) error {
					ids := []string{fmt.Sprint(i), fmt.Sprint(i + 1), fmt.Sprint(id, i)}
					found, err := n.views[depth].LoadMany(ctx, ids, func(ctx context.Context, ids []string) (map[string]lead, error) {
						err := n.leaf(ctx)
						if depth < len(n.views)-1 {
							err = p(ctx, depth+1, ids[0])
						}
						found, failed := leadsOf(ctx, ids)
						return found, errors.Join(err, failed)
					})
					if err == nil && len(found) != len(ids) {
						err = fmt.Errorf("got %v", found)
					}
					return err
				})
			}
			return p
		},
	}
	for name, shape := range shapes {
		for _, c := range []struct {
			depth, outer, most int
			wait               time.Duration
			adapt              bool
		}{
			{2, 1, 1, -1, false}, {2, 1, 1, 0, true}, {2, 1, 2, -1, false}, {3, 1, 1, -1, false}, {3, 4, 2, time.Hour, false}, {3, 4, 4, time.Hour, true},
		} {
			t.Run(fmt.Sprintf("%s, %+v", name, c), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := &Options{MaxLoads: c.most, LoadWait: c.wait, LoadTimeout: time.Hour, AdaptLoads: c.adapt}
					n := newNest(t, c.depth, o)
					p := shape(n)
					// Callers outside of any loader want the same, if they may wait.
					err := each(2*c.outer-1, func(i int) error {
						if i < c.outer {
							return n.load(t.Context(), 0, fmt.Sprint(i), p)
						}
						return n.load(t.Context(), 1, fmt.Sprint(i-c.outer), p)
					})
					if err != nil {
						t.Error(err)
					}
					if most := n.most.Load(); most > int64(c.most) || n.leaves.Load() == 0 {
						t.Errorf("%d at a time, of %d", most, n.leaves.Load())
					}
					for i := range c.most { // all turns were given back
						done, err := n.views[0].store.turn(t.Context(), true, new(seat))
						if err != nil {
							t.Fatalf("turn %d: %v", i, err)
						}
						defer done(false)
					}
					if done, err := n.views[0].store.turn(t.Context(), true, new(seat)); err == nil {
						done(false)
						t.Error("there is a turn more than there were")
					}
				})
			})
		}
	}
}

// Processes whose loaders want the same of each other, in any order, go on as well.
func TestNestedLoadsOfSeveralProcessesEnd(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		first := newStore(t, rdb, func(o *Options) { o.MaxLoads, o.LoadWait, o.LoadTimeout = 1, 20*time.Second, 20*time.Second })
		err := each(2, func(i int) error {
			s, n := first, &nest{}
			if i > 0 {
				s = sibling(t, first)
			}
			inner, outer := Of[lead](s, "inner"), Of[lead](s, "outer")
			err := each(4, func(j int) error {
				_, err := outer.Load(ctx, fmt.Sprint(i, j), func(ctx context.Context, id string) (lead, error) {
					return lead{ID: id}, each(6, func(k int) error {
						_, err := inner.Load(ctx, fmt.Sprint(k), func(ctx context.Context, id string) (lead, error) {
							now := n.now.Add(1)
							defer n.now.Add(-1)
							n.most.Store(max(n.most.Load(), now))
							return lead{ID: id}, rdb.Ping(ctx).Err()
						})
						return err
					})
				})
				return err
			})
			if most := n.most.Load(); most > 1 {
				t.Errorf("process %d: %d at a time", i, most)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// A load that a loader has begun, and does not wait for any longer, is one at the origin like any other.
func TestLoadThatIsLeftBehindKeepsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := newLocal(t, &Options{MaxLoads: 1, LoadWait: -1})
		inner, outer := Of[lead](s, "inner", InProcess(Local{})), Of[lead](s, "outer", InProcess(Local{}))
		g := newGate()
		left := make(chan context.Context, 1)
		l, err := outer.Load(ctx, "1", func(ctx context.Context, _ string) (lead, error) {
			left <- ctx
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			if l, err := inner.Load(short, "1", g.load); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %+v, %v", l, err)
			}
			return lead{Score: 1}, nil
		})
		wantScore(t, l, err, 1)
		if _, err := outer.Load(ctx, "2", loads(lead{Score: 2})); !errors.Is(err, ErrShed) {
			t.Errorf("beside the one that runs: %v", err)
		}
		if _, err := inner.Load(context.WithoutCancel(<-left), "2", loads(lead{Score: 2})); !errors.Is(err, ErrShed) {
			t.Errorf("on the turn of a loader that has returned: %v", err)
		}
		g.release <- lead{Score: 3}
		synctest.Wait()
		l, err = outer.Load(ctx, "2", loads(lead{Score: 2}))
		wantScore(t, l, err, 2)
		l, err = inner.Load(ctx, "1", loads(lead{}))
		wantScore(t, l, err, 3)
	})
}
