package replicasafe

import "fmt"

// Rule is what a finding is about. Its name stands in the comment that accepts one.
type Rule struct {
	Name, Harm, Instead string
}

// Finding is one reason not to run a migration as it is.
type Finding struct {
	Migration string
	Rule      Rule
	// Object is the table, column or index.
	Object string
	// Statement is the one that did it, if it is known.
	Statement string
	// Accepted is the reason that the migration's file gives for it. Empty means that it is not accepted.
	Accepted string
}

// String tells it to whoever wrote the migration.
func (f Finding) String() string {
	text := fmt.Sprintf("%s: %s %s\n  why      %s\n  instead  %s", f.Migration, f.Rule.Name, f.Object, f.Rule.Harm, f.Rule.Instead)
	if f.Statement != "" {
		text += "\n  by       " + f.Statement
	}
	if f.Accepted != "" {
		return text + "\n  accepted " + f.Accepted
	}
	return text + fmt.Sprintf("\n  accept   -- replica-safe: %s %s: <reason>", f.Rule.Name, f.Object)
}

// The rules.
var (
	ruleAccessExclusive = Rule{"access-exclusive",
		"ACCESS EXCLUSIVE is replayed on replicas: there it waits for reads and cancels them after max_standby_streaming_delay, and reads that come meanwhile wait for it. On the primary, everybody waits.",
		"take it for a moment only and in a transaction of its own, with lock_timeout: add columns without a rewrite, constraints NOT VALID and VALIDATE them later, partitions by ATTACH PARTITION."}
	ruleShare = Rule{"share-lock",
		"writes wait until the transaction ends, on every instance, and soon all connections of all pools wait with them.",
		"use the form that lets writes go on: CREATE INDEX CONCURRENTLY, a constraint NOT VALID that is validated later, and no LOCK TABLE."}
	ruleIndex = Rule{"index",
		"an index that is built without CONCURRENTLY stops writes to its table until it is built.",
		"CREATE INDEX CONCURRENTLY under -- +goose NO TRANSACTION, alone in its migration; on a partitioned table for each partition, then ATTACH, as 20240101000000_add_performance_indexes does."}
	ruleRewrite = Rule{"rewrite",
		"every row is written anew under ACCESS EXCLUSIVE: nobody reads meanwhile, and the whole table goes through the WAL to replicas, which fall behind.",
		"add a column beside it, fill it in small transactions, and let a later release use it."}
	ruleUnlogged = Rule{"unlogged",
		"an unlogged table has no rows on replicas and none after a crash: reads that are routed to a replica fail.",
		"leave UNLOGGED out."}
	ruleLockTimeout = Rule{"lock-timeout",
		"while it waits for its lock behind a long transaction, all that come after it wait behind it: a migration of a millisecond stops the service.",
		"SET LOCAL lock_timeout = '3s' before it (SET under NO TRANSACTION), and run it again when it gave up."}
	ruleColumnGone = Rule{"column-gone",
		"while the next release is rolled out, and after it is rolled back, the one before it still reads and writes the column by this name: its statements fail.",
		"stop using the column in one release and drop it in the one after; in place of a new name, add a column and write both."}
	ruleColumnType = Rule{"column-type",
		"statements that instances have prepared fail with \"cached plan must not change result type\", and the release before may send what does not fit.",
		"add a column of the new type, write both, and drop the old one in a later release."}
	ruleColumnRequired = Rule{"column-required",
		"the release before does not name the column: its INSERTs fail.",
		"give it a DEFAULT, or make it NOT NULL in the release after the one that fills it."}
	ruleTableGone = Rule{"table-gone",
		"the release before still uses the table by this name: its statements fail.",
		"stop using it in one release and drop it in the one after."}
	ruleNoDown = Rule{"no-down",
		"a release that is rolled back cannot take its schema along.",
		"write what undoes it after -- +goose Down."}
	ruleDownDiffers = Rule{"down-differs",
		"after Down the schema is another one than before Up, and the next Up starts from there.",
		"let Down undo all of Up."}
	ruleFails = Rule{"fails",
		"it fails in tables that have rows.",
		"let it succeed on rows that are there: a new column needs a DEFAULT or NULL, a new constraint NOT VALID."}
	ruleUnused = Rule{"unused",
		"the comment accepts what is not found: it would hide the finding if it came back.",
		"remove the comment."}
)
