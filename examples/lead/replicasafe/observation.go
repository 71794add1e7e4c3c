package replicasafe

// Observation is what one migration was seen to do.
type Observation struct {
	// Migration is its name.
	Migration string
	// Before, After and Reverted are what there was before it, after it, and after its way back.
	Before, After, Reverted Catalog
	// Statements are what it ran, in order.
	Statements []Statement
	// Failed is why it did not succeed in tables with rows.
	Failed error
	// NoDown says that there is no way back, DownFailed why that one failed.
	NoDown     bool
	DownFailed error
}

// Statement is one that was run.
type Statement struct {
	SQL string
	// LockTimeout is the setting under which it was run; "0" is none.
	LockTimeout string
	// Locks are those that its transaction held after it and not before it. There are none of a statement that
	// PostgreSQL runs outside of transactions only, such as CREATE INDEX CONCURRENTLY.
	Locks []Lock
}

// Lock is one on a table.
type Lock struct {
	Table uint32
	Mode  string // as pg_locks has it
}

const accessExclusive = "AccessExclusiveLock"

// stopsWrites are the weaker ones that ordinary writes have to wait for.
var stopsWrites = map[string]string{"ShareLock": "SHARE", "ShareRowExclusiveLock": "SHARE ROW EXCLUSIVE", "ExclusiveLock": "EXCLUSIVE"}
