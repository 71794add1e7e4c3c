// Package faultconn is a TCP proxy, inside the test process, that misbehaves on demand.
//
// A client connects to [Proxy.Addr] instead of the server; everything it sends is forwarded until the test switches a
// fault on. Faults act at once on the connections that already exist and on the ones to come:
//
//   - [Proxy.Delay] and [Proxy.Bandwidth] slow a direction down; no byte is lost.
//   - [Proxy.Stall] holds a direction: nothing arrives, the end of the stream neither, until Heal delivers it all. This is
//     a network that loses packets for a while.
//   - [Proxy.Blackhole] swallows a direction: bytes are accepted and never delivered, and neither is the end of the
//     stream. This is a network that never comes back for the connections that were open.
//   - [Proxy.HalfOpen] ends the server's side of each connection and leaves the client's open and silent; [Proxy.Orphan]
//     is the mirror image.
//   - [Proxy.Finish] ends the stream (FIN) of one direction only; [Proxy.Cut] ends both; [Proxy.Reset] sends RST to both.
//   - [Proxy.Refuse] makes new connections fail with "connection refused"; those that exist go on.
//   - [Proxy.Heal] takes all of it back.
//
// TCP never delivers a stream with a hole in it. So a connection that lost something (Blackhole, HalfOpen, Orphan) never
// becomes usable again: Heal resets it, and the client has to dial anew.
//
// While the target itself is down a new connection is accepted and then reset at once.
//
// All methods may be called from several goroutines at once. [Proxy.Close] returns when no goroutine of the proxy is left.
package faultconn
