// Package pairstore keeps the read-only state in two stores, so that it survives the loss of either: Redis, which tells
// changes at once, and PostgreSQL, which forgets nothing.
//
// The first store decides between concurrent changes and carries the acknowledgements; the second is told what it has
// decided, and decides while the first does not answer. Each load returns the later of both and writes it back to the one
// that is behind: an evicted key, a failover to an older replica, a restored backup. When both were changed apart, under one
// epoch, the one that refuses writes wins, under a new epoch. Only when neither answers is there an error, and the instances
// keep what they know.
//
// The second store is read at least every Options.Every, and with each poll while the first does not answer or has less
// than was seen before.
package pairstore
