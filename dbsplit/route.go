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
	roleTwin                 // the same server as another node
)

func (r role) String() string {
	return [...]string{"unknown", "primary", "replica", "stranger", "rival", "twin"}[r]
}

// view is one node in a snapshot.
type view struct {
	role   role
	probed bool
	up     bool
	at     scaleaware.Token // replayed on a replica; the end of the log on the primary
	sent   time.Time        // before the probe that told so
	// fresh is when the primary last stood at or below the position that this replica has replayed.
	fresh   time.Duration // since the DB was opened
	bounded bool          // fresh is known
	// lacks is a time at which the primary was further than this replica is now, when fresh is not known but that is.
	lacks time.Duration
	// lagging says that the replica has been too stale by the default bound, and is not far below it yet.
	lagging bool
	// barred says that the replica answers, but comes and goes too often to be relied on.
	barred bool
	near   bool  // in this process's zone
	share  int64 // of the reads, in proportion to the others'; wholeShare per weight once it is warm
	load   *load
	// contested says that this node and another one are not in recovery on the same timeline.
	contested bool
	// tied says that this node is the writer, and that several others were promoted to one timeline.
	tied bool
	// objection is what a node that is not up has answered the monitor instead of what it asked for.
	objection string
}

// snapshot is what the monitor knows at one moment. It never changes.
type snapshot struct {
	nodes   []*node // nil where one was removed; views has the same places
	views   []view
	members int
	writer  int           // the node that takes the writes; its role is rolePrimary only while it is confirmed
	next    chan struct{} // closed when a newer snapshot is there
	// What routing needs of all nodes together, so that it need not look at each: see weigh.
	replicas uint64 // in recovery, of the primary's system, and up
	near     uint64 // in this process's zone
	uneven   bool   // the replicas' shares differ
	// settled says that every node was probed, and that none but the writer should be it: before, a promoted server may
	// not have been noticed yet.
	settled bool
}

// demand is what one read asks for.
type demand struct {
	token     scaleaware.Token // what the caller has written, of this system
	bound     time.Duration    // the most staleness
	strict    bool             // the caller asked for bound: better no answer than a staler one
	primary   bool             // the caller asked for the primary
	noPrimary bool             // the primary does not serve what replicas cannot
	noStale   bool             // a replica staler than the default bound never serves
	wait      bool             // the caller may wait for a replica to replay token
	not       uint64           // nodes that are out of the question: they failed this read, or were not asked for
	prefer    uint64           // nodes to take when they are good enough
	avoid     uint64           // nodes to take only when no other is good enough
	seen      bool             // a node must not be gone back behind that has no position yet
	retry     bool             // a node has failed this read
	now       time.Duration
	random    uint64
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
	becauseBusy                      // a replica staler than the default bound, because the primary's share for reads is used up
	becausePrimaryDown               // a replica staler than the default bound, because the primary is down
	becauseUnbounded                 // a replica of unknown staleness, because the primary was never seen
	becauseStaler                    // a replica staler than the default bound, because the caller wants no primary
	becauseRetry                     // any node, because another one failed this read
	becauseHedge                     // any node, because another one had not answered this read in time
	becauseShadow                    // the node that is compared, after another one has answered
	reasons
)

func (r reason) String() string {
	return [...]string{
		"replica", "asked", "no-monitor", "no-replica", "stale", "behind", "old-timeline", "token-unknown",
		"primary-busy", "primary-down", "unbounded", "staler", "retry", "hedge", "shadow",
	}[r]
}

// choice is a node's place with the reason, or nobody, or the advice to wait for the next snapshot.
type choice struct {
	node    int
	because reason
	wait    bool
}

const nobody = -1

// route chooses the node for a read. It does no I/O and allocates nothing.
//
// The order: a replica within the bound that has the token; a short wait for one that lacks only the token; the primary;
// and when the primary cannot, a staler replica, unless the caller asked for the bound. A token is never broken: a
// primary that has not reached its timeline is an old one, whose promoted successor was not seen yet.
func route(s *snapshot, d *demand) choice {
	var fresh, behind, stale, second uint64 // second: as good as fresh, but not to be relied on yet
	var doubtful uint64                     // a read lost its connection there a moment ago
	late := false
	anything := d.token.IsZero()
	for rest := s.replicas &^ d.not; rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(rest)
		v := &s.views[i]
		bit := uint64(1) << i
		if v.load.suspect.Load() != 0 {
			if anything && !d.seen && !d.strict && !d.noStale {
				doubtful |= bit
			}
			continue
		}
		covers := anything
		if !covers {
			covers, _ = v.at.Covers(d.token)
		}
		bounded := v.bounded && d.now-v.fresh <= d.bound
		lagging := v.lagging && !d.strict
		switch {
		case covers && bounded && (v.barred || lagging):
			second |= bit
			late = late || lagging
		case covers && bounded:
			fresh |= bit
		case covers:
			stale |= bit
		case bounded && !v.barred && !lagging:
			behind |= bit
		}
	}
	primary := &s.views[s.writer]
	outdated := d.token.Timeline > primary.at.Timeline
	usable := d.not&(1<<s.writer) == 0 && !outdated && (!primary.probed || primary.up && primary.role == rolePrimary)
	old := primary.role == rolePrimary && d.token.Timeline != 0 && d.token.Timeline < primary.at.Timeline
	because := becauseReplica
	if d.retry {
		because = becauseRetry
	}
	switch {
	case d.primary && usable:
		return choice{node: s.writer, because: becauseAsked}
	case old && usable:
		return choice{node: s.writer, because: becauseOldTimeline}
	case fresh != 0:
		return choice{node: pick(s, narrow(fresh, d), d), because: because}
	case (behind != 0 || outdated) && d.wait && !old:
		return choice{node: nobody, wait: true}
	case usable && !d.noPrimary:
		switch {
		case d.retry:
		case behind != 0:
			because = becauseBehind
		case stale != 0 || late:
			because = becauseStale
		default:
			because = becauseNoReplica
		}
		return choice{node: s.writer, because: because}
	case second != 0:
		return choice{node: pick(s, narrow(second, d), d), because: because}
	case stale != 0 && !d.strict && !d.noStale:
		i := pick(s, narrow(stale, d), d)
		switch {
		case !s.views[i].bounded:
			because = becauseUnbounded
		case usable:
			because = becauseStaler
		default:
			because = becausePrimaryDown
		}
		return choice{node: i, because: because}
	case doubtful != 0: // rather than nobody; it may have come back older than it was, but nothing was asked of it
		return choice{node: pick(s, narrow(doubtful, d), d), because: becausePrimaryDown}
	default:
		return choice{node: nobody}
	}
}

// narrow leaves of set what the caller prefers, where that leaves anything.
func narrow(set uint64, d *demand) uint64 {
	if kept := set & d.prefer; kept != 0 {
		return kept
	}
	if kept := set &^ d.avoid; kept != 0 {
		return kept
	}
	return set
}
