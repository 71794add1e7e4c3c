// Package pgwitness proves that a PostgreSQL database is quiet: it is the readonly.Witness for Options.Witness.
//
// # What is proven
//
// After all instances have obeyed read-only mode and what they were doing has ended, the witness takes a transaction
// number, the mark. The database is quiet when every transaction of this database with a lower number has ended, when no
// prepared transaction is left, and when no session of this service's programs has a transaction open that could still
// write: one whose client was lost may run on at the server, and gets a number only when it comes to write. The mark is a
// number of the witness's own, pg_current_xact_id, and not the snapshot's xmax, which is too low while the newest
// transaction runs.
//
// With Options.Lock the witness also waits, in each look, for every transaction that holds this advisory lock shared, as those
// of dbsplit with Options.FenceLock do and as other programs may. That holds for transactions that have no number yet, and
// through poolers that hide who is who. Single statements hold no lock: behind such a pooler, one that has lost its client and
// has no number yet is not seen.
//
// # What is not
//
// Programs that know nothing of the switch are not stopped. Those that write while it is held are listed by process,
// application and role; the number of transactions since the mark tells of those that came and went. A role without
// pg_read_all_stats sees that there are some and not who: the answer says that it is blind.
//
// The witness asks the primary with one query a look, of about a millisecond. It keeps nobody waiting but, with Options.Lock,
// transactions that begin while it waits for older ones, for 200 ms at most.
package pgwitness
