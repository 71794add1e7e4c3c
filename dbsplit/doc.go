// Package dbsplit splits reads and writes over a PostgreSQL primary and its streaming replicas, and callers read
// their own writes.
//
// # Promises
//
// In order of strength:
//
//   - A write is sent once. When its connection is lost before the answer, [ErrOutcomeUnknown] says so; it is sent again only
//     when it has certainly done nothing, because it never left this process or a standby has refused it.
//   - A statement goes to a replica only when the program says so: through [DB.Read], or in a transaction opened with
//     pgx.ReadOnly. No SQL text is ever guessed from. Everything else goes to the primary. A session opened for reads is
//     read-only, on the primary as well: a write sent there fails with [ErrWriteInRead], also after its replica was promoted. That
//     is for mistakes, and not against intent: on a direct connection SQL that asks for the contrary gets it, such as BEGIN
//     READ WRITE, SET TRANSACTION READ WRITE or SET default_transaction_read_only.
//   - With [RequireFresh] a read sees everything that was committed before it, by anybody. It costs a round trip to the
//     primary.
//   - A bound given with [MaxStaleness] is never broken. It is proven by comparing positions in the primary's log, not
//     by clocks, and holds when a replica's stream is cut.
//   - Reads under a context with a scaleaware.Watermark see everything that was committed under that watermark, in this
//     process or in another one that carried it there: a replica that has not replayed it is not asked. This holds
//     with synchronous_commit off, too.
//   - With [Options.MonotonicReads] they also never see less than an earlier read under that watermark, but for one case
//     that PostgreSQL leaves open: a primary sends a commit to its replicas a moment before it shows it itself. A read that
//     a replica answered within that moment may be followed by one that the primary answers without it. The moment is the
//     time between two instructions of the committing process, longer when that is not scheduled; with
//     synchronous_standby_names it is as long as the wait for the standby.
//   - Without either, a read sees a state of the database that the primary once had, within [Options.MaxStaleness] while
//     the primary can serve those that no replica can.
//
// These are promises to one session. Two sessions may see two commits in different orders on two replicas.
//
// # Failure
//
// What becomes of each promise when servers fail:
//
// Writes. While the primary is away, a write that has not been sent waits [Options.FailoverWait] for it, or for the promotion
// of a replica, and then fails; [DB.Ready] says so meanwhile. When the primary refuses one because its sessions are read-only,
// that one fails, and the next one waits until it is found to take writes, or all nodes were looked at. When a replica leaves
// recovery on a higher timeline of the same cluster, writes move to it. A server in recovery never gets a write. Neither does
// one that left recovery on the writer's timeline or an older one, also while the writer is down: it lacks what was committed
// since. While several are on one timeline there is no guess: writes fail with [ErrTwoPrimaries], and [DB.Nodes], the log,
// db_node_up and [DB.Ready] tell of them. A DB knows only what it has seen: one that is opened while the promoted server is
// down believes in its Nodes.Primary. While [DB.Run] runs, the first write looks at all nodes before. A transaction that was
// begun before writes moved is not committed, and an answer that comes after it is no success.
//
// Reads. A replica that is down, too stale, of another cluster, or not in recovery gets none; [DB.Nodes], the log and the
// metrics say why, and it comes back by itself: slowly, and not more often than every five seconds. It may restart between two
// looks of the monitor, at an older position: over a connection that was opened after the last look, a read that has a
// watermark or a bound first asks the replica where it stands, once for each such connection. A read whose node fails
// before the first row is sent to one other node, once; so is one that a replica cancels because it conflicts with recovery, and
// when that was the second replica, it goes to the primary, once, if it may go there. A standby has no serializable transactions:
// where they are the default, sessions of reads on standbys are repeatable read, and a statement that asks for one in SQL
// goes to the primary, but not from within a batch or a transaction of Read, which fail: use [Reader.BeginTx]. A read
// that replicas have refused, so that only the primary is left, waits for a promotion as writes do, for [Options.FailoverWait]; one
// that finds no node to be sent to fails at once.
// When no replica qualifies, [Options.Fallback] decides: by default the primary answers, over a pool of its own so that
// readers cannot starve the writers, and when that is used up or the primary is down, a staler replica. The callers' own writes and
// the bounds that they asked for never give way: such a read fails with [ErrNoNode] when no node has what it needs.
//
// A replica that is slow and not down: with [Hedge] a second node is asked, too, when the first has not answered in time.
//
// Own writes. When the primary fails between a commit and the question for its position, the watermark holds an unknown token. A
// read that has one asks the primary first, once, and goes on with the answer; without an answer it goes to the primary
// and nowhere else, so while that is down it fails. Positions from before a promotion cannot be compared by their numbers:
// reads that carry one go to the primary until their caller's watermark has been renewed there, and when the promotion came
// earlier in the log than the position, they are told, once by each DB, by [ErrLostWrite]. Reads that carry a position of a
// newer timeline are not answered by an old primary, but by [ErrNoNode].
//
// Silence. When a node does not answer the monitor, its connections that are as silent are closed ([Options.ProbeTimeout]): what
// waits there ends as if the node had died, also a long statement that was merely under way. Connections that
// [DB.Operations] opened for themselves are left alone.
//
// While [Options.Gate] refuses writes, transactions, those that a batch begins included, and COPY fail with its error before
// anything is sent, and single statements run over a read-only session, as those of [DB.Acquire] and [RawConn] are: reads work,
// and PostgreSQL itself refuses the rest, but for what asks for the contrary in SQL, as above, or with pgx.ReadWrite on such a
// connection.
//
// # Poolers
//
// A connection string says what stands before its server: node_pooler=session or node_pooler=transaction, after
// PgBouncer's pool_mode. Then all promises hold there, too, but for a restart that is described below. In transaction mode nothing is kept from one transaction
// to the next, so each statement of a read is a read-only transaction by itself, in one round trip as before; a
// tracer sees it as a batch of two. pgx's default mode of execution fails there, so cache_describe takes its place,
// unless the connection string chooses another safe one. With node_pooler=transaction-prepared (PgBouncer 1.21 or
// newer with max_prepared_statements) the default stays. Also in transaction mode: maintenance, and connections from
// [DB.Acquire] and [RawConn] while the gate refuses writes, are refused, since they need a session; what Read sends
// in one batch or string must not COMMIT in its middle; and LISTEN, SET and advisory locks of a session do not work,
// as nowhere there.
//
// While [DB.Run] runs, poolers that were not declared, or wrongly, are found, and [DB.Nodes] says what to add. Where
// statements would fail or settings would reach other clients, nothing is sent to that node, and [ErrPooler] says
// why. Reads through a pooler that was not declared fail with it: their sessions would not be read-only.
//
// What a pooler says of its server's role is old, so it counts for nothing; the monitor asks the server. Nor does it show that
// its server has restarted: one that comes up at an older position may answer until the monitor's next look. A node whose
// probes wait in a pooler's queue gets no reads, but nothing that runs there is ended, also when its server hangs:
// give calls a deadline.
//
// # Use
//
// [Open] takes connection strings; [DB.Run] watches the nodes, and all reads go to the primary unless it runs. The DB has the
// methods of *pgxpool.Pool, so sqlc's queries and pgx's helpers take it, and [DB.Read] for reads. Replicas come and go by
// [Options.Discover], [DB.AddReplica] and [DB.RemoveReplica]; [OnRoute] and [ReadTracer] tell where each read went. A new
// replica gets a share of the reads by [Canary]; [Shadow] compares its answers with the others' before that.
//
// What speaks database/sql, such as ent, gorm, bun, sqlx and goose, takes sql.OpenDB of [DB.Connector]: statements go to the
// primary, transactions opened with sql.TxOptions.ReadOnly to a replica, and all promises above hold.
// [Reader.Connector] opens a handle that only reads.
//
// Replicas are PostgreSQL's own streaming standbys. Those of Aurora tell no positions, so they get no reads.
//
// No privilege is needed. With pg_monitor, pg_signal_backend and EXECUTE on pg_read_file more is seen and can be done;
// [NodeStatus] names what is missing.
//
// # Operations
//
// [DB.Operations] are the runbook's database operations, for package admin; each is a method as well. [DB.SlowQueries],
// [DB.Replication], [DB.Sizes] and [DB.Partitions] look, reset nothing and need no privilege, but say what they may not
// see. They and [DB.CancelLongRunning] open a connection for each call, since the pools may be full of what they look for.
// [DB.OptimizeTable], [DB.EnsurePartitions], [DB.MoveDefaultRows] and [DB.DetachPartitions] change the database: they
// are refused while the gate is closed, also as dry runs, go where writes go and end with an error when that changes
// meanwhile, wait for locks for moments only, and can be called again when they were broken off. [DB.CancelLongRunning] and
// [DB.Resize] work in read-only mode.
package dbsplit
