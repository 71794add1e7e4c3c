package dbsplit

import (
	"sort"
	"time"

	"github.com/scaleaware/scaleaware"
)

// ringSize bounds a ring: at four samples a second it reaches back four minutes while the primary is being written
// to, and for ever while it is idle.
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
		copy(r.samples, r.samples[1:])
		r.samples = r.samples[:ringSize-1]
	}
	r.samples = append(r.samples, sample{lsn, at})
}

// reached returns the newest time at which the primary stood at lsn or below. ok is false when that is longer
// ago than the ring reaches.
func (r *ring) reached(lsn scaleaware.LSN) (at time.Time, ok bool) {
	i := sort.Search(len(r.samples), func(i int) bool { return r.samples[i].lsn > lsn })
	if i == 0 {
		return time.Time{}, false
	}
	return r.samples[i-1].at, true
}

func (r *ring) reset() { r.samples = r.samples[:0] }
