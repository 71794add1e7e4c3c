package dbsplit

import (
	"errors"
	"fmt"
	"slices"
)

// members returns the DB's nodes, the configured primary first.
func (db *DB) members() []*node {
	all := slices.Clone(*db.places.Load())
	return slices.DeleteFunc(all, func(n *node) bool { return n == nil })
}

// lookUp returns the node of that name, or nil.
func (db *DB) lookUp(name string) *node {
	for _, n := range *db.places.Load() {
		if n != nil && n.name == name {
			return n
		}
	}
	return nil
}

// AddReplica adds a server while the DB is in use, by a connection string like those of Nodes.Replicas. It gets reads once
// the monitor finds it to be a replica of this cluster that is fresh enough. It is an error if the DB has a server of that
// host and port already.
func (db *DB) AddReplica(connString string) error {
	e, err := parseDSN(connString)
	if err != nil {
		return fmt.Errorf("dbsplit: the replica's connection string %w", err)
	}
	return db.add(e, false)
}

func (db *DB) add(e endpoint, discovered bool) error {
	db.opts.configure(e.config)
	db.resize.Lock()
	defer db.resize.Unlock()
	if db.closed.Load() {
		return ErrClosed
	}
	if db.lookUp(e.name) != nil {
		return fmt.Errorf("dbsplit: %s is a node already, remove it first", e.name)
	}
	places := slices.Clone(*db.places.Load())
	place := slices.Index(places, nil)
	if place < 0 {
		place = len(places)
		places = append(places, nil)
	}
	if place >= maxNodes {
		return fmt.Errorf("dbsplit: %d servers are the most that one DB takes, remove one first", maxNodes)
	}
	n := db.newNode(e, place)
	n.discovered = discovered
	err := db.replaceReads(n, false)
	if err != nil {
		return err
	}
	alone := len(db.members()) == 1
	places[place] = n
	// It counts as probed: writes and elections do not wait for a newcomer.
	db.occupy(places, place, standing{probed: true, err: errNewcomer})
	if alone {
		err = db.replaceReads(db.writer.Load(), true) // it now keeps a share of the primary only
	}
	select {
	case db.joined <- struct{}{}:
	default:
	}
	db.opts.Logger.Info("dbsplit: replica was added", "db", db.opts.Name, "node", e.name)
	return err
}

var errNewcomer = errors.New("dbsplit: it was added a moment ago and has not been probed yet")

// RemoveReplica takes the server of that host and port out, as NodeStatus.Name has it. Reads under way on it go on. The
// server that takes the writes cannot be removed.
func (db *DB) RemoveReplica(name string) error {
	db.resize.Lock()
	defer db.resize.Unlock()
	n := db.lookUp(name)
	switch {
	case n == nil:
		return fmt.Errorf("dbsplit: there is no node %s to remove, the nodes are those that Nodes reports", name)
	case n == db.writer.Load():
		return fmt.Errorf("dbsplit: %s takes the writes and cannot be removed, promote another server first", name)
	}
	places := slices.Clone(*db.places.Load())
	places[n.index] = nil
	db.occupy(places, n.index, standing{probed: true})
	close(n.gone)
	db.retire(n.reads.Load())
	db.in.forget(n.name)
	db.opts.Logger.Info("dbsplit: replica was removed", "db", db.opts.Name, "node", name)
	if db.running.Load() {
		db.publish()
	}
	if len(db.members()) == 1 {
		return db.replaceReads(db.writer.Load(), true)
	}
	return nil
}

// occupy sets who is at a place and what is known of it, in one step: the monitor must not elect a node that has gone.
func (db *DB) occupy(places []*node, place int, s standing) {
	m := &db.monitor
	m.mu.Lock()
	defer m.mu.Unlock()
	db.places.Store(&places)
	for len(m.nodes) <= place {
		m.nodes = append(m.nodes, standing{})
		m.told = append(m.told, verdict{})
	}
	m.nodes[place], m.told[place] = s, verdict{}
}

// newNode makes a node without pools.
func (db *DB) newNode(e endpoint, place int) *node {
	n := &node{endpoint: e, index: place, prompt: make(chan struct{}, 1), gone: make(chan struct{})}
	n.sight.Store(&sight{db: db, node: n})
	return n
}

// readConns is how many connections reads may have to n, by its role.
func (db *DB) readConns(n *node, writer bool) int32 {
	switch {
	case writer:
		return db.primaryReads()
	case db.opts.ReplicaConns > 0:
		return db.inProportion(db.opts.ReplicaConns)
	default:
		return db.inProportion(n.config.MaxConns)
	}
}
