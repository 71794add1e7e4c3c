// Package replicasafe finds migrations that hurt: reads on replicas, writes that go on meanwhile, or the release that still
// runs while the next one is rolled out.
//
// Check does what a migration would do and looks: in an empty database of its own it runs all older ones, puts a few rows
// into each table, runs the one in question, and compares. What it sees are locks before commit, rewritten files, and
// the catalogue before, after, and after the way back. Judge decides on that alone, and needs no server.
//
// A finding that is meant is accepted by a comment in the migration's file, which the finding shows:
//
//	-- replica-safe: access-exclusive "Lead": adds a column without touching a row, and gives up after 3s
//
// It cannot see how long a lock is held on your data, nor what your queries read: a lock that is a moment here is one there
// only if nothing is rewritten or searched, and a column that is gone is always told of.
package replicasafe
