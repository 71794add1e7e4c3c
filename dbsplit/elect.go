package dbsplit

import "time"

// standing is what the monitor last learned of one node.
type standing struct {
	position
	probed bool
	up     bool
	since  time.Time // when the probe that told so was sent
	err    error
}

// elect returns the node that writes go to. A server that is not in recovery on a higher timeline was promoted later, so
// it wins, whether or not the older one still answers. Between equal timelines the present one stays, and there is
// no guess between two others. system is the cluster's identifier, or 0 before its primary was ever seen: then a
// promoted server needs another node of its system as a witness, since it might be a stranger.
func elect(nodes []standing, current int, system uint64) int {
	best, timeline, tie := current, uint32(0), false
	if claims(nodes[current], system) {
		timeline = nodes[current].at.Timeline
	}
	for i, n := range nodes {
		if i == current || !claims(n, system) || system == 0 && !witnessed(nodes, i) {
			continue
		}
		switch {
		case n.at.Timeline > timeline:
			best, timeline, tie = i, n.at.Timeline, false
		case n.at.Timeline == timeline && best != current:
			tie = true
		}
	}
	if tie {
		return current
	}
	return best
}

func claims(n standing, system uint64) bool {
	return n.up && !n.recovering && (system == 0 || n.at.System == system)
}

func witnessed(nodes []standing, candidate int) bool {
	for i, n := range nodes {
		if i != candidate && n.up && n.recovering && n.at.System == nodes[candidate].at.System {
			return true
		}
	}
	return false
}
