package dbsplit

import (
	"math/bits"
	"time"

	"github.com/scaleaware/scaleaware"
)

// maxNodes is how many nodes fit into the sets that route works with.
const maxNodes = 64

// role is what the monitor found a node to be.
type role uint8

const (
	roleUnknown  role = iota // not probed yet, or down ever since
	rolePrimary              // takes the writes
	roleReplica              // in recovery, of the primary's system
	roleStranger             // of another system
	roleRival                // of the primary's system, not in recovery, and not the primary
)

func (r role) String() string {
	return [...]string{"unknown", "primary", "replica", "stranger", "rival"}[r]
}

// view is one node in a snapshot.
type view struct {
	role   role
	probed bool
	up     bool
	at     scaleaware.Token // replayed on a replica; the end of the log on the primary
	// fresh is when the primary last stood at or below the position that this replica has replayed.
	fresh   time.Duration // since the DB was opened
	bounded bool          // fresh is known
	load    *load
	// contested says that this node and another one are not in recovery on the same timeline.
	contested bool
	// tied says that this node is the writer, and that several others were promoted to one timeline.
	tied bool
}

// snapshot is what the monitor knows at one moment. It never changes.
type snapshot struct {
	views  []view
	writer int           // the node that takes the writes; its role is rolePrimary only while it is confirmed
	next   chan struct{} // closed when a newer snapshot is there
	// settled says that every node was probed, and that none but the writer should be it: before, a promoted server may
	// not have been noticed yet.
	settled bool
}

// demand is what one read asks for.
type demand struct {
	token   scaleaware.Token // what the caller has written, of this system
	bound   time.Duration    // the most staleness
	strict  bool             // the caller asked for bound: better no answer than a staler one
	primary bool             // the caller asked for the primary
	wait    bool             // the caller may wait for a replica to replay token
	not     uint64           // nodes that already failed this read
	now     time.Duration
	random  uint64
}

// reason says why a node was chosen. It is a label of db_reads_total.
type reason uint8

const (
	becauseReplica     reason = iota // a replica that has all that was asked for
	becauseAsked                     // the primary, because the caller said so
	becauseNoMonitor                 // the primary, because Run is not running
	becauseNoReplica                 // the primary, because no replica is up
	becauseStale                     // the primary, because all replicas are too stale
	becauseBehind                    // the primary, because no replica has the caller's writes yet
	becauseOldTimeline               // the primary, because the caller's writes precede a promotion
	becauseUnknown                   // the primary, because the position after a write is not known
	becausePrimaryDown               // a replica staler than the default bound, because the primary is down
	becauseUnbounded                 // a replica of unknown staleness, because the primary was never seen
	becauseRetry                     // any node, because another one failed this read
	reasons
)

func (r reason) String() string {
	return [...]string{
		"replica", "asked", "no-monitor", "no-replica", "stale", "behind", "old-timeline", "token-unknown",
		"primary-down", "unbounded", "retry",
	}[r]
}

// choice is a node's index with the reason, or nobody, or the advice to wait for the next snapshot.
type choice struct {
	node    int
	because reason
	wait    bool
}

const nobody = -1

// route chooses the node for a read. It does no I/O and allocates nothing.
//
// The order: a replica within the bound that has the token; a short wait for one that lacks only the token; the primary;
// and when the primary is down, a staler replica, unless the caller asked for the bound. A token is never broken: a
// primary that has not reached its timeline is an old one, whose promoted successor was not seen yet.
func route(s *snapshot, d demand) choice {
	var fresh, behind, stale uint64
	for i := range s.views {
		v := &s.views[i]
		bit := uint64(1) << i
		if v.role != roleReplica || !v.up || d.not&bit != 0 || v.load.suspect.Load() {
			continue
		}
		covers, _ := v.at.Covers(d.token)
		bounded := v.bounded && d.now-v.fresh <= d.bound
		switch {
		case covers && bounded:
			fresh |= bit
		case covers:
			stale |= bit
		case bounded:
			behind |= bit
		}
	}
	primary := &s.views[s.writer]
	outdated := d.token.Timeline > primary.at.Timeline
	usable := d.not&(1<<s.writer) == 0 && !outdated && (!primary.probed || primary.up && primary.role == rolePrimary)
	old := primary.role == rolePrimary && d.token.Timeline != 0 && d.token.Timeline < primary.at.Timeline
	because := becauseReplica
	if d.not != 0 {
		because = becauseRetry
	}
	switch {
	case d.primary && usable:
		return choice{node: s.writer, because: becauseAsked}
	case old && usable:
		return choice{node: s.writer, because: becauseOldTimeline}
	case fresh != 0:
		return choice{node: lighter(s, fresh, d), because: because}
	case (behind != 0 || outdated) && d.wait && !old:
		return choice{node: nobody, wait: true}
	case usable:
		switch {
		case d.not != 0:
			because = becauseRetry
		case behind != 0:
			because = becauseBehind
		case stale != 0:
			because = becauseStale
		default:
			because = becauseNoReplica
		}
		return choice{node: s.writer, because: because}
	case stale != 0 && !d.strict:
		i := lighter(s, stale, d)
		because = becausePrimaryDown
		if !s.views[i].bounded {
			because = becauseUnbounded
		}
		return choice{node: i, because: because}
	default:
		return choice{node: nobody}
	}
}

// lighter takes two members of set at random and returns the one with less load: nearly as good as looking at all of
// them, and many callers with the same snapshot do not all run to the same node.
func lighter(s *snapshot, set uint64, d demand) int {
	n := uint64(bits.OnesCount64(set))
	first := member(set, (d.random&0xffffffff)%n)
	if n == 1 {
		return first
	}
	second := member(set&^(1<<first), (d.random>>32)%(n-1))
	// Like answers share like reads: only a clear difference, of a third, is followed.
	if s.views[second].load.cost(d.now) < s.views[first].load.cost(d.now)/4*3 {
		return second
	}
	return first
}

// member returns the k-th lowest element of set.
func member(set, k uint64) int {
	for ; k > 0; k-- {
		set &= set - 1
	}
	return bits.TrailingZeros64(set)
}
