package dbsplit

// note logs that a node has gone, come or changed, as it is seen.
func (db *DB) note(n *node, before, now standing) {
	logger := db.opts.Logger.With("db", db.opts.Name, "node", n.name)
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
}

// verdict is what was last told of a node.
type verdict struct {
	role  string // in db_node_up; empty: nothing yet
	alarm string
}

// judge sets db_node_up, and returns the nodes that are up in a role which needs somebody to act, once for each such
// finding. Before all were heard of, and while writes are about to move, such findings may be mistaken.
func (db *DB) judge(s *snapshot, elected int) (alarms []*node) {
	settled := elected == s.writer && (db.system.Load() != 0 || s.views[s.writer].role != rolePrimary)
	for i := range s.views {
		settled = settled && s.views[i].probed
	}
	for i, n := range s.nodes {
		if n == nil {
			continue
		}
		v, told := &s.views[i], &db.monitor.told[i]
		if !v.probed {
			continue
		}
		if was := told.role; was != "" && was != v.role.String() {
			db.in.up.DeleteLabelValues(db.opts.Name, n.name, was)
		}
		told.role = v.role.String()
		up := 0.0
		if v.up {
			up = 1
		}
		db.in.up.WithLabelValues(db.opts.Name, n.name, told.role).Set(up)
		if !settled {
			continue
		}
		alarm := ""
		if v.up && (v.contested || v.tied || v.role == roleStranger || v.role == roleRival || v.role == roleTwin && !n.discovered || i == s.writer && v.role == roleReplica) {
			alarm = v.advice(i == s.writer)
		}
		if alarm != "" && alarm != told.alarm {
			alarms = append(alarms, n)
		}
		told.alarm = alarm
	}
	return alarms
}
