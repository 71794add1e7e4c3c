package dbsplit

import "time"

// Fallback says who serves a read that no replica can within its bound. A caller's own writes are seen whoever it is.
type Fallback uint8

const (
	// FallbackPrimaryThenStale asks the primary, within Options.PrimaryReadConns, and when those are in use or it is down,
	// a staler replica, unless the read asked for a bound.
	FallbackPrimaryThenStale Fallback = iota
	// FallbackPrimary asks the primary and nobody else.
	FallbackPrimary
	// FallbackStale spares the primary: a staler replica serves, unless the read asked for a bound.
	FallbackStale
	// FallbackNone lets the read fail with ErrNoNode.
	FallbackNone
)

func (f Fallback) primary() bool { return f == FallbackPrimaryThenStale || f == FallbackPrimary }

func (f Fallback) stale() bool { return f == FallbackPrimaryThenStale || f == FallbackStale }

type readSettings struct {
	bound    time.Duration
	strict   bool
	primary  bool
	current  bool
	wait     time.Duration
	fallback Fallback
	only     string
	canary   string
	share    float64
	report   func(Provenance)
	told     *Provenance // nil: report and the ReadTracer are told when the read is sent
	because  reason      // 0: why it goes there is what counts
	special  bool        // QueryRow and Query may send more than one statement
	hedged   bool
	delay    time.Duration
	shadow   *shadowing
}

// ReadOption adjusts one handle from Read.
type ReadOption func(*readSettings)

// MaxStaleness makes d a promise: no node that may be staler answers, and when none is left the read fails with
// ErrNoNode. Zero and less ask for the primary.
func MaxStaleness(d time.Duration) ReadOption {
	return func(s *readSettings) { s.bound, s.strict = d, true }
}

// RequireFresh makes the read see everything that was committed before it, by anybody. It costs a round trip to the
// primary, which tells its position; a replica that has replayed that may answer. While the primary is down such reads fail
// with ErrNoNode.
func RequireFresh() ReadOption { return func(s *readSettings) { s.current = true } }

// PreferPrimary reads from the primary while it is up, over a read-only session.
func PreferPrimary() ReadOption { return func(s *readSettings) { s.primary = true } }

// OnNode reads from the node of that host and port and from no other. How stale it is matters only with MaxStaleness; what
// the caller has written must be there. Otherwise the read fails with ErrNoNode.
func OnNode(name string) ReadOption { return func(s *readSettings) { s.only = name } }

// Canary sends that share of the reads, from 0 to 1, to the node of that host and port while it is as good as the others,
// and the rest to the others. Shadow compares instead.
func Canary(name string, share float64) ReadOption {
	return func(s *readSettings) { s.canary, s.share = name, share }
}

// FallBack is Options.Fallback for one handle.
func FallBack(f Fallback) ReadOption { return func(s *readSettings) { s.fallback = f } }

// WaitForReplica is Options.WaitForReplica for one handle.
func WaitForReplica(d time.Duration) ReadOption { return func(s *readSettings) { s.wait = d } }

// OnRoute calls f with the provenance of each read before it is sent: once more when it is sent to another node because
// the first one failed. It runs in the caller's goroutine. Hedge says when that is with it.
func OnRoute(f func(Provenance)) ReadOption { return func(s *readSettings) { s.report = f } }

func (db *DB) defaultRead() readSettings {
	return readSettings{bound: db.opts.MaxStaleness, wait: db.opts.WaitForReplica, fallback: db.opts.Fallback}
}
