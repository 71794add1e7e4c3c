// Package pgstore keeps the read-only state in a row of PostgreSQL. It is made to be the second witness beside Redis, in
// readonly/pairstore: the row survives what Redis may lose by eviction, failover or a restart.
//
// It works alone too. Then a change is noticed within Options.Poll, every instance writes a row with each of its polls to
// acknowledge, and when the primary is lost the mode cannot be changed.
//
// The row is written in a transaction that says READ WRITE, so it can be changed while default_transaction_read_only is on,
// and under [readonly.OwnWrite], so a dbsplit.DB whose gate is the very switch lets it pass. Foreign programs may read the
// row: see [Schema].
package pgstore
