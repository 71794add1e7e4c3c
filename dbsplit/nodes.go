package dbsplit

import "time"

// NodeStatus is what the monitor last learned of one node.
type NodeStatus struct {
	// Name is the node's host and port.
	Name string `json:"name"`
	// Role is primary, replica, unknown (never reached), stranger (another cluster) or rival (a second primary).
	// Reads go to replicas only, and to the primary.
	Role string `json:"role"`
	// Up is whether the last probe was answered.
	Up bool `json:"up"`
	// Timeline and LSN are the end of a primary's log, and what a replica has replayed.
	Timeline uint32 `json:"timeline,omitempty"`
	LSN      string `json:"lsn,omitempty"`
	// Staleness is the upper bound of a replica's staleness; negative when it is not known.
	Staleness time.Duration `json:"staleness_ns"`
	// Inflight counts the reads under way, and Latency is the moving average of their time to the first answer.
	Inflight int64         `json:"inflight"`
	Latency  time.Duration `json:"latency_ns"`
	// Advice says what is wrong and what to do, if anything is.
	Advice string `json:"advice,omitempty"`
}

// Nodes reports on all nodes, in the order in which they were given. Without Run all are unknown.
func (db *DB) Nodes() []NodeStatus {
	s := db.snap.Load()
	all := make([]NodeStatus, len(db.nodes))
	for i, n := range db.nodes {
		all[i] = NodeStatus{
			Name: n.name, Role: roleUnknown.String(), Staleness: -1, Advice: "the monitor is not running: call Run",
			Inflight: n.load.inflight.Load(), Latency: time.Duration(n.load.latency.Load()),
		}
		if s == nil {
			continue
		}
		v := s.views[i]
		all[i].Role, all[i].Up = v.role.String(), v.up
		all[i].Advice = v.advice(i == s.writer)
		if !v.at.IsZero() {
			all[i].Timeline, all[i].LSN = v.at.Timeline, v.at.LSN.String()
		}
		if v.bounded {
			all[i].Staleness = max(0, db.now()-v.fresh)
		}
	}
	return all
}

func (v view) advice(writer bool) string {
	switch {
	case !v.probed:
		return "not probed yet"
	case v.role == roleStranger:
		return "it belongs to another cluster (its system identifier differs), so it is not read from: correct its connection string"
	case v.contested && writer && v.up:
		return "another server takes writes on the same timeline: stop that one, and rebuild it as a replica"
	case v.contested && writer:
		return "it does not answer, and another server takes writes on the same timeline, without what was committed here: bring it up, promote a replica, or name the other one as Nodes.Primary"
	case v.tied:
		return "several other servers were promoted to the same timeline, so writes do not move: stop all of them but one, and rebuild those as replicas"
	case v.contested:
		return "it and another server take writes on the same timeline, so it is neither written to nor read from: stop whichever is not the true primary, and rebuild it as a replica"
	case v.role == roleRival:
		return "it is not in recovery, so it is no replica and is not read from: rebuild it as a replica, or remove it"
	case !v.up && writer:
		return "the primary does not answer: bring it up, or promote a replica"
	case !v.up:
		return "it does not answer and gets no reads: bring it up, or remove it"
	case writer && v.role != rolePrimary:
		return "it is the configured primary but in recovery: promote it, or correct Nodes.Primary"
	case !writer && !v.bounded:
		return "its staleness is not known: the primary was not seen, or it replays too far behind"
	default:
		return ""
	}
}
