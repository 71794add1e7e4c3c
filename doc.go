// Package scaleaware is the floor that the other packages share: the consistency token, the watermark that carries it
// through a unit of work, and what takes it over HTTP.
//
// # Promises
//
//   - A [Watermark] never goes back, and loses no write that was noted while a position was being looked up.
//   - A write is not forgotten when its position cannot be learned: an unknown [Token] stands for it, through the same
//     carriers, until somebody has asked the primary where it stands. Its [Source] has to be a [SystemSource].
//   - A position from outside is believed only if it was signed: nobody can make one up that no server ever reaches.
//   - A [Token] has one text form; parsers take nothing else, and tokens of different histories are never compared.
//
// # Failures
//
// A position that cannot be had in time, since the primary is slow, silent or dead, is counted and logged; the client
// gets an unknown token instead. Its next reads ask the primary, or are answered by it, or fail while there is none: no
// replica may answer them, because nobody can tell what it would lack. A token that is malformed, forged, expired or too long is counted and ignored.
//
// # Use
//
// A [Token] names a position in the write-ahead log of one PostgreSQL cluster. A [Watermark] travels in a context:
// dbsplit raises it at commit and reads only from replicas that have replayed it; session, queue and [Carrier] take
// it across process borders; cache stamps its entries with it. So a caller that wrote on one instance reads its own
// write on any other, from replicas.
//
// [Signer] signs tokens for clients; [Carrier] is the HTTP middleware, and the transport between one's own services;
// [BeforeResponse] is for middleware that puts the outcome of a request into a header.
//
// The package imports the standard library only, and no other package of this module.
package scaleaware
