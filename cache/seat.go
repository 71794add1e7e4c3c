package cache

// A loader that waits for another load has no use for its turn meanwhile, and if the other had to wait for one, too, each might
// wait for the other. So the loads that a loader waits for may go on its turn, one at a time: that is the seat. The others
// wait for turns of their own, or until the seat is free; a load holds it while its loader runs, and not while it waits for what
// another process loads. Whoever has a seat has one itself. So of those who wait for each other one always goes on: the one
// that waits for nobody runs, or may have the seat of who waits for it.

// seat is the place on a loader's turn. The governor's lock guards it.
type seat struct {
	taken  bool
	closed bool                   // the loader has returned
	wanted map[*lentTurn]struct{} // whose loads the loader waits for
	after  []func()               // give turns back that loaders had who returned while the seat was taken
}

// lentTurn is what a load may go on beside a turn of its own. The governor's lock guards it.
type lentTurn struct {
	seats map[*seat]struct{} // of loaders that wait for the load
	wish  *wish              // of the load, while it waits for its turn
}

// wish is that of one load, maybe for many flights.
type wish struct {
	flights  []*lentTurn
	got      *seat
	wake     func() // ends the wait
	seatOnly bool   // it waits for nothing else
}

// lend lets a load have the seat of a loader that waits for it, until it does no longer.
func (g *governor) lend(l *lentTurn, st *seat) (over func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if st.closed {
		return func() {}
	}
	if st.wanted == nil {
		st.wanted = make(map[*lentTurn]struct{})
	}
	if l.seats == nil {
		l.seats = make(map[*seat]struct{})
	}
	st.wanted[l], l.seats[st] = struct{}{}, struct{}{}
	st.give(l)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		st.forget(l)
	}
}

// forget makes the seat none of a load's.
func (st *seat) forget(l *lentTurn) {
	delete(st.wanted, l)
	delete(l.seats, st)
	if w := l.wish; w != nil && w.seatOnly && !w.lent() {
		w.wake()
	}
}

// give gives a free seat to a load that wishes for one.
func (st *seat) give(l *lentTurn) {
	if w := l.wish; w != nil && w.got == nil && !st.taken && !st.closed {
		w.got, st.taken = st, true
		if w.wake != nil {
			w.wake()
		}
	}
}

// lent reports whether there are loaders that wait for the load.
func (w *wish) lent() bool {
	for _, l := range w.flights {
		if len(l.seats) > 0 {
			return true
		}
	}
	return false
}

// wishes notes that a load wishes for a seat, and reports whether it has got one at once. st is its own, which is free to lend.
func (g *governor) wishes(st *seat, flights []*lentTurn) (w *wish, got bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	st.closed = false
	w = &wish{flights: flights}
	for _, l := range flights {
		l.wish = w
		for st := range l.seats {
			st.give(l)
		}
	}
	return w, w.got != nil
}

// waits says how to end the wait, for a seat only or for whatever comes first. It reports false when there is no seat to wait for.
func (g *governor) waits(w *wish, wake func(), seatOnly bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	w.wake, w.seatOnly = wake, seatOnly
	if w.got != nil {
		wake()
	}
	return w.got != nil || w.lent()
}

// settle ends a wish and returns the seat that it has got, or nil.
func (g *governor) settle(w *wish) *seat {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range w.flights {
		l.wish = nil
	}
	return w.got
}

// free gives a seat to the next load, and what waits for that the turn back.
func (g *governor) free(st *seat) {
	g.mu.Lock()
	st.taken = false
	after := st.after
	st.after = nil
	for l := range st.wanted {
		st.give(l)
	}
	g.mu.Unlock()
	for _, back := range after {
		back()
	}
}

// leave ends a loader: its turn is given back when its seat is free.
func (g *governor) leave(st *seat, telling bool, back func(telling bool)) {
	g.mu.Lock()
	st.closed = true
	for l := range st.wanted {
		st.forget(l)
	}
	taken := st.taken
	if taken {
		st.after = append(st.after, func() { back(false) })
	}
	g.mu.Unlock()
	if !taken {
		back(telling)
	}
}
