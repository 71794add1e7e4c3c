// Package scaleaware is the floor that the other packages share: the consistency token and the watermark that
// carries it through a unit of work.
//
// A [Token] names a position in the write-ahead log of one PostgreSQL cluster. A [Watermark] travels in a context:
// dbsplit raises it at commit and reads only from replicas that have replayed it; session, queue and [Carrier] take
// it across process borders; cache stamps its entries with it. So a caller that wrote on one instance reads its own
// write on any other, from replicas.
//
// The package imports the standard library only, and no other package of this module.
package scaleaware
