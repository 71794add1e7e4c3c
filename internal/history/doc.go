// Package history decides, from what clients did and saw, whether a replicated database kept its promises to them. It
// knows nothing of the database: the clients write down their operations, and two kinds of books are checked.
//
// A Checker judges counters. Each counter is increased by one session alone, one operation at a time, and read by anybody,
// so the values themselves tell what a reader must have seen and what cannot be. It finds
//
//   - ReadYourWrites: a session reads less than what it wrote.
//   - MonotonicReads: a session reads less than what it has read.
//   - MonotonicWrites: a write was applied to a state that lacked an earlier one of its session.
//   - WritesFollowReads: a write was applied to a state that lacked what its session had read.
//   - LostUpdate: at the end something is missing that was acknowledged, or seen.
//   - DoubleApply: a counter is higher than all that was sent can explain, if its writer's history is there.
//
// A Ledger judges rows with unique keys that nobody but the client makes sure to be unique: an acknowledged row is there
// once, one of unknown outcome at most once, a failed one never.
//
// Both take operations of unknown outcome for what they are: they may have happened, may still happen, and happen once.
// Both need O(1) time an operation; a Checker keeps two operations for each counter that a session touched, a Ledger a
// word for each row. Each violation names the two operations that contradict each other: no shorter history is one.
package history
