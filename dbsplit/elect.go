package dbsplit

import (
	"math/bits"
	"time"
)

// standing is what the monitor last learned of one node.
type standing struct {
	position
	admission
	probed  bool
	up      bool
	twin    bool      // the same server as another node
	lagging bool      // too stale by the default bound since it was last far below it
	since   time.Time // when the probe that told so was sent
	err     error
}

// elect returns the node that writes go to. A server that is not in recovery on a higher timeline was promoted later, so
// it wins, whether or not the older one still answers. One on the same timeline, or an older one, has not what the
// present writer has committed since: it never wins, also while the writer is down. There is no guess between several on
// one timeline, nor before every node was heard of: the writer stays, and contested is the set of them.
//
// system is the cluster's identifier, or 0 before its primary was ever seen: then a promoted server needs another node
// of its system as a witness, since it might be a stranger.
func elect(nodes []standing, current int, system uint64) (writer int, contested uint64) {
	present := &nodes[current]
	if system == 0 {
		system = present.at.System
	}
	var top uint64 // the servers on the highest timeline
	timeline := uint32(0)
	if !present.at.IsZero() && present.at.System == system {
		timeline = present.at.Timeline
		if !present.recovering {
			top = 1 << current
		}
	}
	for i, n := range nodes {
		switch {
		case !n.probed:
			return current, 0
		case i == current || !claims(n, system) || system == 0 && !witnessed(nodes, i):
		case n.at.Timeline > timeline:
			top, timeline = 1<<i, n.at.Timeline
		case n.at.Timeline == timeline:
			top |= 1 << i
		}
	}
	switch bits.OnesCount64(top) {
	case 0:
		return current, 0
	case 1:
		return bits.TrailingZeros64(top), 0
	default:
		return current, top
	}
}

func claims(n standing, system uint64) bool {
	return n.up && !n.recovering && !n.twin && (system == 0 || n.at.System == system)
}

func witnessed(nodes []standing, candidate int) bool {
	for i, n := range nodes {
		if i != candidate && n.up && n.recovering && n.at.System == nodes[candidate].at.System {
			return true
		}
	}
	return false
}
