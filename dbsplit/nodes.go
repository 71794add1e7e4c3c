package dbsplit

import (
	"log/slog"
	"time"
)

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

// note logs and counts a change of one node.
func (db *DB) note(n *node, before, now standing) {
	logger := db.opts.Logger.With("db", db.opts.Name, "node", n.name)
	label := func(st standing) string {
		switch {
		case st.at.IsZero():
			return roleUnknown.String()
		case st.recovering:
			return roleReplica.String()
		}
		return rolePrimary.String()
	}
	if was := label(before); was != label(now) {
		db.in.up.DeleteLabelValues(db.opts.Name, n.name, was)
	}
	up := 0.0
	if now.up {
		up = 1
	}
	db.in.up.WithLabelValues(db.opts.Name, n.name, label(now)).Set(up)

	system := db.system.Load()
	switch {
	case now.err != nil && (before.up || !before.probed):
		logger.Warn("dbsplit: node is down", "error", now.err)
	case now.err != nil:
		logger.Debug("dbsplit: node is still down", "error", now.err)
	case !before.up:
		logger.Info("dbsplit: node is up", "recovering", now.recovering, "timeline", now.at.Timeline)
	case before.recovering != now.recovering:
		logger.Warn("dbsplit: node has changed its role", "recovering", now.recovering, "timeline", now.at.Timeline)
	}
	if now.up && !before.up {
		switch writer := n == db.writer.Load(); {
		case system != 0 && system != now.at.System && !writer:
			logger.Error("dbsplit: node belongs to another cluster and is not read from, correct its connection string")
			db.in.failed("role")
		case !writer && !now.recovering:
			logger.Error("dbsplit: node is not in recovery and so no replica, it is not read from", slog.String("do", "rebuild it as a replica, or remove it"))
			db.in.failed("role")
		case writer && now.recovering:
			logger.Error("dbsplit: the primary's address is answered by a standby, correct Nodes.Primary or promote it")
			db.in.failed("role")
		}
	}
}
