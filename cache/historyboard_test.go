package cache

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// The board is memory that all processes of a history share: the origin's registers, when which version was invalidated,
// and what was counted. A read is judged when it ends, so that ten million leave nothing to keep.

const (
	boardKeys   = 240
	boardProcs  = 4
	boardRing   = 512 // versions of a key that are remembered; the half ahead is blank
	boardLosses = 8   // faults that may lose what a master has acknowledged, per key
	boardRounds = 64  // of the gates
	boardPhases = 32
)

// phaseCounts is what was counted in one phase.
type phaseCounts struct {
	reads   atomic.Int64
	tokens  atomic.Int64 // reads with a token, among them
	failed  atomic.Int64
	loads   atomic.Int64
	writes  atomic.Int64 // invalidations that returned nil
	refused atomic.Int64 // and those that did not
	stale   atomic.Int64 // reads of what somebody has invalidated before they began
	over50  atomic.Int64 // of these, more than 50 ms before
	late    atomic.Int64 // and of those, while every process and every server had its turn
	oldest  atomic.Int64 // how long before, at most, ns
	lost    atomic.Int64 // reads of what a failover has brought back
}

type register struct {
	version atomic.Int64
	raised  [boardRing]atomic.Int64             // when the version was committed
	dead    [boardRing]atomic.Int64             // when an invalidation that covers the version returned first anywhere, ns
	deadIn  [boardProcs][boardRing]atomic.Int64 // and in a process
	losses  [boardLosses]struct{ from, to atomic.Int64 }
}

type round struct {
	open     atomic.Int64 // the callers may begin
	release  atomic.Int64 // the loaders may return
	loads    atomic.Int64
	holder   atomic.Int64             // the process whose loader runs, plus 1
	joined   atomic.Int64             // callers who wait for a load
	begins   [boardProcs]atomic.Int64 // how often a process has begun a load, or has been told of another's
	answered atomic.Int64
	wrong    atomic.Int64
}

type board struct {
	stop       atomic.Int64
	quiet      atomic.Int64 // nobody reads or writes
	phase      atomic.Int64
	violations atomic.Int64
	reads      atomic.Int64
	keys       [boardKeys]register
	rounds     [boardRounds]round
	phases     [boardPhases]phaseCounts
	pulses     [boardProcs]pulse
	stand      [boardProcs]struct{ kept, bad, inProcess, redis, misses atomic.Int64 }
}

// pulse says whether a process, and the servers for it, had their turn on the machine.
type pulse struct {
	since atomic.Int64 // no beat was late since
	last  atomic.Int64
}

// lateBeat is when a beat is late, which asks every master.
const lateBeat = 20 * time.Millisecond

// unhurried reports whether all beats were in time between two moments, the second of them just now.
func (b *board) unhurried(from, to int64) bool {
	for i := range b.pulses {
		p := &b.pulses[i]
		if last := p.last.Load(); last != 0 && (p.since.Load() > from || last < to-int64(2*lateBeat)) {
			return false
		}
	}
	return true
}

// mapBoard maps the file; whoever creates it gives its size.
func mapBoard(path string) (*board, func() error, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	size := int(unsafe.Sizeof(board{}))
	if err := f.Truncate(int64(size)); err != nil {
		return nil, nil, err
	}
	mem, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, nil, err
	}
	return (*board)(unsafe.Pointer(&mem[0])), func() error { return syscall.Munmap(mem) }, nil
}

// stopwatch gives all processes one time: the wall clock is read once, when a process begins.
type stopwatch struct {
	born   time.Time
	offset time.Duration
}

func newStopwatch(base time.Time) stopwatch {
	now := time.Now()
	return stopwatch{born: now, offset: time.Duration(now.UnixNano() - base.UnixNano())}
}

func (w stopwatch) now() int64 { return int64(w.offset + time.Since(w.born)) }

// What invalidated a version stands in the last three bits of when.
const (
	byDelete int64 = iota
	bySet
	byTag
	byPattern
	byRule // whose sweep did not come
)

var invalidators = []string{"a delete", "a set", "a tag", "a pattern", "a rule"}

// raise is a commit at the origin.
func (r *register) raise(at int64) int64 {
	v := r.version.Add(1)
	r.raised[v%boardRing].Store(at)
	ahead := (v + boardRing/2) % boardRing
	r.dead[ahead].Store(0)
	for p := range r.deadIn {
		r.deadIn[p][ahead].Store(0)
	}
	return v
}

// retired notes that an invalidation of all that is older than version has returned in a process.
func (r *register) retired(version int64, proc int, at int64) {
	for v := version - 1; v >= 0 && v > version-boardRing/2; v-- {
		first := r.note(&r.dead[v%boardRing], at)
		here := r.note(&r.deadIn[proc][v%boardRing], at)
		if !first && !here {
			return // and so are those before it
		}
	}
}

// note keeps the first time, or the first that was not lost.
func (r *register) note(dead *atomic.Int64, at int64) bool {
	was := dead.Load()
	return (was == 0 || r.lossy(was) && !r.lossy(at)) && dead.CompareAndSwap(was, at)
}

// lossy reports whether an invalidation may have been lost in a failover.
func (r *register) lossy(at int64) bool {
	for i := range r.losses {
		if from := r.losses[i].from.Load(); from != 0 && at >= from && at <= r.losses[i].to.Load() {
			return true
		}
	}
	return false
}

// judge decides about a read that began at start in a process and gave version. The bound is how old news may be that
// comes from other processes. What a failover may have brought back is excused: lost is when it was invalidated in this process,
// or 0.
func (b *board) judge(key int, version, start int64, proc int, bound time.Duration) (complaint string, lost int64) {
	r, counts := &b.keys[key], &b.phases[b.phase.Load()]
	now := r.version.Load()
	if version > now {
		return fmt.Sprintf("version %d, the origin has only %d", version, now), 0
	}
	if now-version >= boardRing/2 {
		return fmt.Sprintf("version %d, the origin has %d", version, now), 0
	}
	dead, here := r.dead[version%boardRing].Load(), r.deadIn[proc][version%boardRing].Load()
	if dead == 0 || dead >= start {
		return "", 0
	}
	if r.lossy(dead) {
		counts.lost.Add(1)
		if here >= start {
			here = 0
		}
		return "", here
	}
	late := start - dead
	counts.stale.Add(1)
	if late > int64(50*time.Millisecond) {
		counts.over50.Add(1)
		if b.unhurried(dead, start) {
			counts.late.Add(1)
		}
	}
	for {
		oldest := counts.oldest.Load()
		if late <= oldest || counts.oldest.CompareAndSwap(oldest, late) {
			break
		}
	}
	if here != 0 && here < start {
		return fmt.Sprintf("version %d (the origin has %d), which %s had removed that returned here %v before the read began (at %v)", version, now, invalidators[here&7], time.Duration(start-here), time.Duration(start)), 0
	}
	if late > int64(bound) {
		return fmt.Sprintf("version %d (the origin has %d), which %s had removed that returned elsewhere %v before the read began (at %v)", version, now, invalidators[dead&7], time.Duration(late), time.Duration(start)), 0
	}
	return "", 0
}
