package dbsplit

import (
	"slices"
	"sort"
	"time"

	"github.com/scaleaware/scaleaware"
)

// ringSize bounds a ring, not how far it reaches back: the older, the fewer samples are kept. At four a second, those of the
// last minute are all there, and one of a day ago is within half an hour of the next.
const ringSize = 1024

// ring remembers when the primary's log had reached which position. A replica that has replayed position R lacks
// nothing that was committed before the newest sample at or below R was taken. So staleness is bounded without
// comparing clocks, truthfully on an idle primary and on a cut stream alike.
type ring struct {
	samples []sample // ascending in both fields
}

type sample struct {
	lsn scaleaware.LSN
	at  time.Time // before the probe was sent, with its monotonic reading
}

// add notes that the primary stood at lsn at a time not before at.
func (r *ring) add(lsn scaleaware.LSN, at time.Time) {
	if n := len(r.samples); n > 0 {
		switch last := &r.samples[n-1]; {
		case lsn < last.lsn:
			r.samples = r.samples[:0] // another history
		case lsn == last.lsn:
			last.at = at
			return
		}
	}
	if len(r.samples) == ringSize {
		r.thin()
	}
	r.samples = append(r.samples, sample{lsn, at})
}

// thin makes room: it leaves out samples closer to the next one than a fraction of their age, the smallest fraction that
// makes a quarter of the ring free. Who asks for one that is gone gets the one before it, and so a bound that is too high by
// about that fraction, never one that is too low.
func (r *ring) thin() {
	kept := make([]sample, 0, ringSize)
	newest, oldest := r.samples[len(r.samples)-1], r.samples[0]
	for part := time.Duration(256); part == 256 || len(kept) > ringSize*3/4; part /= 2 {
		kept = append(kept[:0], newest)
		for i := len(r.samples) - 2; i > 0; i-- {
			s := r.samples[i]
			if kept[len(kept)-1].at.Sub(s.at) > newest.at.Sub(s.at)/part {
				kept = append(kept, s)
			}
		}
	}
	kept = append(kept, oldest)
	slices.Reverse(kept)
	r.samples = kept
}

// reached returns a time at which the primary stood at lsn or below, the newest one that is remembered. ok is false when
// that is longer ago than the ring reaches; at is then the oldest time that is remembered, or zero.
func (r *ring) reached(lsn scaleaware.LSN) (at time.Time, ok bool) {
	i := sort.Search(len(r.samples), func(i int) bool { return r.samples[i].lsn > lsn })
	switch {
	case len(r.samples) == 0:
		return time.Time{}, false
	case i == 0:
		return r.samples[0].at, false
	default:
		return r.samples[i-1].at, true
	}
}

func (r *ring) reset() { r.samples = r.samples[:0] }
