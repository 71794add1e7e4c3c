package dbsplit

import (
	"cmp"
	"time"
)

// NodeStatus is what the monitor last learned of one node.
type NodeStatus struct {
	// Name is the node's host and port.
	Name string `json:"name"`
	// Role is primary, replica, unknown (never reached), stranger (another cluster), rival (a second primary) or twin (the
	// same server as another node).
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
	// MaxConnections is how many connections the server takes from ordinary roles, and FleetConnections how many all
	// instances together may open to it; 0 while not known, and behind a pooler, which has limits of its own.
	MaxConnections   int `json:"max_connections,omitempty"`
	FleetConnections int `json:"fleet_connections,omitempty"`
	// Lacks are the privileges that this role does not have there, with what each costs.
	Lacks []string `json:"lacks,omitempty"`
	// Advice says what is wrong and what to do, if anything is.
	Advice string `json:"advice,omitempty"`
}

// Nodes reports on all nodes: those of Open in the order in which they were given, and those that were added. Without Run
// all are unknown.
func (db *DB) Nodes() []NodeStatus {
	s := db.snap.Load()
	var all []NodeStatus
	for _, n := range db.members() {
		all = append(all, db.status(n, s))
	}
	return all
}

func (db *DB) status(n *node, s *snapshot) NodeStatus {
	st := NodeStatus{
		Name: n.name, Role: roleUnknown.String(), Staleness: -1, Advice: "the monitor is not running: call Run",
		Inflight: n.load.inflight.Load(), Latency: time.Duration(n.load.latency.Load()),
	}
	for _, l := range n.lacking.list() {
		st.Lacks = append(st.Lacks, string(l))
	}
	over := n.budget.Load()
	if over != nil {
		st.MaxConnections, st.FleetConnections = over.most, over.fleet
	}
	if s == nil {
		return st
	}
	if !s.has(n) {
		st.Advice = view{}.advice(false)
		return st
	}
	v := s.views[n.index]
	st.Role, st.Up = v.role.String(), v.up
	st.Advice = n.counsel(cmp.Or(v.advice(n.index == s.writer), over.advice()))
	if !v.at.IsZero() {
		st.Timeline, st.LSN = v.at.Timeline, v.at.LSN.String()
	}
	if v.bounded {
		st.Staleness = max(0, db.now()-v.fresh)
	}
	return st
}

func (v view) advice(writer bool) string {
	switch {
	case !v.probed:
		return "not probed yet"
	case v.role == roleStranger:
		return "it belongs to another cluster (its system identifier differs), so it is not read from: correct its connection string"
	case v.contested && writer && v.up:
		return "another server takes writes on the same timeline, so neither gets any: stop whichever is not the true primary, and rebuild it as a replica"
	case v.contested && writer:
		return "it does not answer, and another server takes writes on the same timeline, without what was committed here: bring it up, promote a replica, or name the other one as Nodes.Primary"
	case v.tied:
		return "several other servers were promoted to the same timeline, so writes do not move: stop all of them but one, and rebuild those as replicas"
	case v.contested:
		return "it and another server take writes on the same timeline, so it is neither written to nor read from: stop whichever is not the true primary, and rebuild it as a replica"
	case v.role == roleTwin:
		return "it is the same server as another node, so it is not read from: name each server once"
	case v.role == roleRival:
		return "it is not in recovery, so it is no replica and is not read from: rebuild it as a replica, or remove it"
	case !v.up && v.objection != "" && writer:
		return "the primary refuses the monitor: " + v.objection
	case !v.up && v.objection != "":
		return "it refuses the monitor and gets no reads: " + v.objection
	case !v.up && writer:
		return "the primary does not answer: bring it up, or promote a replica"
	case !v.up:
		return "it does not answer and gets no reads: bring it up, or remove it"
	case writer && v.role != rolePrimary:
		return "it is the configured primary but in recovery: promote it, or correct Nodes.Primary"
	case v.barred:
		return "it came and went within 5 s, so it gets no reads yet while others can serve them"
	case !writer && !v.bounded:
		return "its staleness is not known: the primary was not seen, or it has been behind since before this process looked"
	default:
		return ""
	}
}
